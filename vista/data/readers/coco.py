"""COCO instance and caption files, and LLaVA conversations over the same images, as records."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from vista.config.data import SPLITS, CocoData, CocoFiles, Fractions, Split
from vista.data.geometry import clip_box
from vista.data.images import ImageSource
from vista.data.jsonfile import get_identifier, get_key, stream_key, stream_list
from vista.data.masks import Rle, decode_mask, encode_mask, outlines, polygons_to_mask
from vista.data.readers.llava import conversation_turns
from vista.data.records import Box, Object, Record, Turn
from vista.data.skipped import Skipped
from vista.data.spill import Spill
from vista.data.splits import Splitter, in_split_order
from vista.errors import UserError, reason_of
from vista.foreign.text import one_line
from vista.foreign.values import flag, identifier, integer, number

# The ids of COCO's images, and what is kept of each: its name and, if the file has it, its size.
Images = dict[str, dict[str, Any]]


def coco_records(settings: CocoData, skipped: Skipped) -> Iterator[Record]:
    """Records of a COCO data set, split by split, in the order of the files.

    Annotations wait in a temporary file for their images, so that memory holds neither a whole
    file nor a whole data set. Raises UserError naming file and id for a missing or unreadable
    image (noted in `skipped` if the settings say so), an annotation or caption of an image that
    is not there, and a mask that does not fit its image.
    """
    if settings.splits is not None:
        for split in [name for name in SPLITS if name in settings.splits]:
            yield from _file_records(settings, settings.splits[split], split, skipped)
    elif settings.files is not None:
        yield from in_split_order(
            _file_records(settings, settings.files, settings.fractions, skipped)
        )


def _file_records(
    settings: CocoData, files: CocoFiles, rule: Split | Fractions, skipped: Skipped
) -> Iterator[Record]:
    source = ImageSource(Path(settings.images))
    splitter = Splitter(rule, settings)
    listed_in = Path(files.instances or files.captions or "")
    with Spill() as annotations, Spill() as captions, Spill() as turns:
        images, categories = _read_files(files, annotations, captions, turns, skipped)
        for image_id, image in images.items():
            split = splitter.split(image_id)
            if split is None:
                continue
            file_name = get_key(image, "file_name", str, listed_in)
            relative = f"{files.folder}/{file_name}" if files.folder else file_name
            annotated = _annotated_size(image, listed_in)
            named = f"image id {one_line(image_id)} of {listed_in}"
            size = skipped.image_size(source, relative, settings, image_id, named, annotated)
            if size is None:
                continue
            if annotated is not None and annotated != size:
                raise UserError(
                    f"{one_line(source.root / relative)} is {size[0]}x{size[1]}, {named} is "
                    f"{annotated[0]}x{annotated[1]}: use the images that were annotated"
                )
            texts = _texts(_distinct(captions[image_id], relative, skipped), relative, skipped)
            conversation = tuple(Turn(*pair) for pair in turns[file_name])
            if file_name not in turns:
                conversation = tuple(Turn(settings.question, text) for text in texts[:1])
            objects: list[Object] = []
            for entry in _distinct(annotations[image_id], relative, skipped):
                item = _object(entry, categories, size, listed_in)
                if not item.box.width or not item.box.height:
                    skipped.add(_entry_id(entry), relative, "annotation without area")
                elif min(clip_box(item.box, *size)[2:]) == 0:
                    skipped.outside(_entry_id(entry), relative, settings, str(listed_in))
                else:
                    objects.append(item)
            yield Record(
                image_id,
                split,
                relative,
                *size,
                texts,
                conversation,
                tuple(objects),
                _group(image, listed_in),
            )


def _read_files(
    files: CocoFiles, annotations: Spill, captions: Spill, turns: Spill, skipped: Skipped
) -> tuple[Images, dict[str, str]]:
    """The images, in the files' order, and the categories; the rest is spilt by image."""
    images: Images = {}
    categories: dict[str, str] = {}
    if files.instances is not None:
        path = Path(files.instances)
        images |= _images_by_id(path)
        categories = _categories(path)
        for item in stream_key(path, "annotations"):
            annotations.add(_known_image(item, images, path), item)
    if files.captions is not None:
        path = Path(files.captions)
        # COCO lists the same images in both files; one file alone may list more.
        for image_id, image in _images_by_id(path).items():
            images.setdefault(image_id, image)
        for item in stream_key(path, "annotations"):
            image_id = _known_image(item, images, path)
            text = item.get("caption")
            text = "" if text is None else get_key(item, "caption", str, path)
            captions.add(image_id, {"id": item.get("id"), "caption": text.strip()})
    if files.conversations is not None:
        _spill_turns(Path(files.conversations), images, turns, skipped)
    return images, categories


def _categories(path: Path) -> dict[str, str]:
    categories: dict[str, str] = {}
    for item in stream_key(path, "categories"):
        category_id = get_identifier(item, "id", path)
        name = get_key(item, "name", str, path)
        if not name.strip():
            raise UserError(f"{path}: category id {one_line(category_id)} has no name")
        if categories.setdefault(category_id, name) != name:
            raise UserError(
                f"{path}: category id {one_line(category_id)} comes twice, as "
                f"{categories[category_id]!r} and {name!r}: give each category an id"
            )
    return categories


def _annotated_size(image: dict[str, Any], path: Path) -> tuple[int, int] | None:
    """Width and height in px that the file gives an image, if it does."""
    values = image.get("width"), image.get("height")
    if values == (None, None):
        return None
    width, height = map(integer, values)
    if width is None or height is None:
        raise UserError(
            f"{path}: width and height of image id {one_line(image['id'])} must be whole numbers "
            f"of pixels, got {one_line(list(values))}"
        )
    return width, height


def _group(image: dict[str, Any], path: Path) -> str | None:
    """The group that metrics report an image in, if the file gives it one."""
    if image.get("vista_group") is None:
        return None
    group: str = get_key(image, "vista_group", str, path)
    return group or None


def _distinct(
    items: Iterable[dict[str, Any]], path: str, skipped: Skipped
) -> Iterator[dict[str, Any]]:
    """The annotations of one image; of equal ones with an id all but the first are noted."""
    seen: dict[str, list[dict[str, Any]]] = {}
    for item in items:
        equals = seen.setdefault(_entry_id(item), [])
        if item.get("id") is not None and item in equals:
            skipped.add(_entry_id(item), path, "annotation comes twice")
        else:
            equals.append(item)
            yield item


def _texts(captions: Iterable[dict[str, Any]], path: str, skipped: Skipped) -> tuple[str, ...]:
    texts: list[str] = []
    for item in captions:
        if item["caption"]:
            texts.append(item["caption"])
        else:
            skipped.add(_entry_id(item), path, "caption without text")
    return tuple(texts)


def _entry_id(item: Any) -> str:
    """The id of an annotation or a row for a message."""
    return one_line(item.get("id")) if isinstance(item, dict) else "None"


def _object(
    item: dict[str, Any], categories: dict[str, str], size: tuple[int, int], path: Path
) -> Object:
    label = f"annotation {_entry_id(item)}"
    category = categories.get(get_identifier(item, "category_id", path))
    if category is None:
        raise UserError(
            f"{path}: {label} has category_id {one_line(repr(item['category_id']))}, which is not "
            "among the categories"
        )
    box = item.get("bbox")
    numbers = [number(value) for value in box] if isinstance(box, list) else []
    bounds = [value for value in numbers if value is not None]
    if len(numbers) != 4 or len(bounds) != 4 or min(bounds[2:]) < 0:
        raise UserError(
            f"{path}: {label} needs a bbox [x, y, width, height], got {one_line(repr(box))}"
        )
    crowd = item.get("iscrowd")
    is_crowd = False if crowd is None else flag(crowd)
    if is_crowd is None:
        raise UserError(f"{path}: {label} has iscrowd {one_line(repr(crowd))}, not 0 or 1")
    return Object(
        category, Box(*bounds), _mask(item.get("segmentation"), label, size, path), is_crowd
    )


def segmentation_mask(item: dict[str, Any], size: tuple[int, int], path: Path) -> Rle | None:
    """The mask of an annotation of an image of a size (width, height); None if it has none.

    Raises UserError naming file and annotation if it cannot be read.
    """
    return _mask(item.get("segmentation"), f"annotation {_entry_id(item)}", size, path)


def _mask(value: Any, label: str, size: tuple[int, int], path: Path) -> Rle | None:
    """Polygons, uncompressed or compressed runs as compressed runs; None if there are none."""
    if not value:
        return None
    width, height = size
    try:
        if isinstance(value, list):
            polygons = outlines(value)
            return encode_mask(polygons_to_mask(polygons, height, width)) if polygons else None
        runs = value if isinstance(value, dict) else {}
        sides, counts = runs.get("size"), runs.get("counts")
        if not isinstance(sides, list) or not isinstance(counts, list | str):
            raise ValueError(f"{str(value)[:80]!r} is neither polygons nor runs (size, counts)")
        if [integer(side) for side in sides] != [height, width]:
            raise ValueError(f"its size is {sides}, its image's [{height}, {width}]")
        return encode_mask(decode_mask({"size": [height, width], "counts": counts}))
    except ValueError as error:
        raise UserError(
            f"{path}: segmentation of {label} cannot be read: {reason_of(error)}"
        ) from error


def _spill_turns(path: Path, images: Images, turns: Spill, skipped: Skipped) -> None:
    """Question and answer pairs of the conversations, by file name of their image."""
    names = {get_key(image, "file_name", str, path) for image in images.values()}
    for i, row in enumerate(stream_list(path)):
        if not isinstance(row, dict):
            raise UserError(f"{path}: row {i} must be an object with `image` and `conversations`")
        name = row.get("image")
        if name is None or name == "":
            skipped.add(_entry_id(row), None, "text only")
            continue
        if not isinstance(name, str) or name not in names:
            raise UserError(
                f"{path}: row {one_line(repr(row.get('id')))} is about image "
                f"{one_line(repr(name))}, which the annotations do not list"
            )
        pairs = conversation_turns(row, path)
        if not pairs:
            skipped.add(_entry_id(row), name, "no question with an answer")
        for turn in pairs:
            turns.add(name, [turn.question, turn.answer])


def _images_by_id(path: Path) -> Images:
    images: Images = {}
    for image in stream_key(path, "images"):
        image_id = identifier(image.get("id")) if isinstance(image, dict) else None
        if image_id is None:
            raise UserError(f"{path}: an entry of `images` has no id")
        if image_id in images:
            raise UserError(f"{path}: image id {one_line(image_id)} comes twice in `images`")
        images[image_id] = {
            key: image[key]
            for key in ("id", "file_name", "width", "height", "vista_group")
            if key in image
        }
    return images


def _known_image(item: Any, images: Images, path: Path) -> str:
    value = item.get("image_id") if isinstance(item, dict) else None
    image_id = identifier(value)
    if image_id is None or image_id not in images:
        raise UserError(
            f"{path}: annotation {_entry_id(item)} is about image {one_line(repr(value))}, which "
            "`images` does not list"
        )
    if "segments_info" in item:
        raise UserError(f"{path} is a panoptic file of COCO: name an instances file in its place")
    return image_id
