"""COCO instance and caption files, and LLaVA conversations over the same images, as records."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vista.config.data import SPLITS, CocoData, CocoFiles, Fractions, Split
from vista.data.images import ImageSource
from vista.data.jsonfile import get_key, stream_key, stream_list
from vista.data.llava import conversation_turns
from vista.data.masks import Rle, decode_mask, encode_mask, polygons_to_mask
from vista.data.records import Box, Object, Record, Turn
from vista.data.skipped import Skipped
from vista.data.spill import Spill
from vista.data.splits import Splitter, in_split_order
from vista.errors import UserError

# The ids of COCO's images, and what is kept of each: its name and, if told, its size.
Images = dict[int | str, dict[str, Any]]


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
    instances_path = Path(files.instances) if files.instances else None
    listed_in = Path(files.instances or files.captions or "")
    with Spill() as annotations, Spill() as captions, Spill() as turns:
        images, categories = _read_files(files, annotations, captions, turns)
        for image_id, image in images.items():
            split = splitter.split(str(image_id))
            if split is None:
                continue
            file_name = get_key(image, "file_name", str, listed_in)
            relative = f"{files.folder}/{file_name}" if files.folder else file_name
            size = skipped.image_size(
                source,
                relative,
                settings,
                str(image_id),
                f"image id {image_id} of {listed_in}",
            )
            if size is None:
                continue
            width, height = size
            said = (image.get("width", width), image.get("height", height))
            if said != size:
                raise UserError(
                    f"{source.root / relative} is {width}x{height}, image id {image_id} of "
                    f"{listed_in} is {said[0]}x{said[1]}: use the images that were annotated"
                )
            told = tuple(captions[image_id])
            said_turns = tuple(Turn(*each) for each in turns[file_name])
            if file_name not in turns:
                said_turns = tuple(Turn(settings.question, caption) for caption in told[:1])
            yield Record(
                image_id=str(image_id),
                split=split,
                path=relative,
                width=width,
                height=height,
                captions=told,
                turns=said_turns,
                objects=tuple(
                    _object(item, categories, width, height, instances_path)
                    for item in annotations[image_id]
                    if instances_path is not None
                ),
            )


def _read_files(
    files: CocoFiles, annotations: Spill, captions: Spill, turns: Spill
) -> tuple[Images, dict[int, str]]:
    """The images, in the files' order, and the categories; the rest is spilt by image."""
    images: Images = {}
    categories: dict[int, str] = {}
    if files.instances is not None:
        path = Path(files.instances)
        images |= _images_by_id(path)
        categories = {
            get_key(item, "id", int, path): get_key(item, "name", str, path)
            for item in stream_key(path, "categories")
        }
        for item in stream_key(path, "annotations"):
            annotations.add(_known_image(item, images, path), item)
    if files.captions is not None:
        path = Path(files.captions)
        # COCO lists the same images in both files; one file alone may list more.
        for image_id, image in _images_by_id(path).items():
            images.setdefault(image_id, image)
        for item in stream_key(path, "annotations"):
            image_id = _known_image(item, images, path)
            captions.add(image_id, get_key(item, "caption", str, path).strip())
    if files.conversations is not None:
        _spill_turns(Path(files.conversations), images, turns)
    return images, categories


def _object(
    item: dict[str, Any], categories: dict[int, str], width: int, height: int, path: Path
) -> Object:
    number = item.get("id")
    category = categories.get(get_key(item, "category_id", int, path))
    if category is None:
        raise UserError(
            f"{path}: annotation {number} has category_id {item.get('category_id')!r}, which is "
            "not among the categories"
        )
    box = item.get("bbox")
    if not (isinstance(box, list) and len(box) == 4 and all(map(_is_number, box))) or (
        min(box[2:]) < 0
    ):
        raise UserError(
            f"{path}: annotation {number} needs a bbox [x, y, width, height], got {box!r}"
        )
    return Object(
        category,
        Box(*(float(n) for n in box)),
        _mask(item.get("segmentation"), number, width, height, path),
        bool(item.get("iscrowd", 0)),
    )


def _mask(value: Any, number: Any, width: int, height: int, path: Path) -> Rle | None:
    """Polygons, uncompressed or compressed runs as compressed runs; None if there are none."""
    if not value:
        return None
    try:
        if isinstance(value, list):
            return encode_mask(polygons_to_mask(value, height, width))
        if list(value["size"]) != [height, width]:
            raise ValueError(f"its size is {value['size']}, its image's [{height}, {width}]")
        return encode_mask(decode_mask(value))
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(
            f"{path}: segmentation of annotation {number} cannot be read: {error}"
        ) from error


def _spill_turns(path: Path, images: Images, turns: Spill) -> None:
    """Question and answer pairs of the conversations, by file name of their image."""
    names = {get_key(image, "file_name", str, path) for image in images.values()}
    for row in stream_list(path):
        name = row.get("image") if isinstance(row, dict) else None
        if name is None:
            continue  # a row of text only belongs to no image
        if not isinstance(name, str) or name not in names:
            raise UserError(
                f"{path}: row {row.get('id')!r} is about image {name!r}, which the annotations "
                "do not list"
            )
        for turn in conversation_turns(row, path):
            turns.add(name, [turn.question, turn.answer])


def _images_by_id(path: Path) -> Images:
    images: Images = {}
    for image in stream_key(path, "images"):
        image_id = image.get("id") if isinstance(image, dict) else None
        if not isinstance(image_id, int | str) or isinstance(image_id, bool):
            raise UserError(f"{path}: an entry of `images` has no id")
        if image_id in images:
            raise UserError(f"{path}: image id {image_id} comes twice in `images`")
        images[image_id] = {
            key: image[key] for key in ("id", "file_name", "width", "height") if key in image
        }
    return images


def _known_image(item: dict[str, Any], images: Images, path: Path) -> int | str:
    image_id = item.get("image_id") if isinstance(item, dict) else None
    # `true` is an int too, and equal to the id 1.
    if isinstance(image_id, int | str) and type(image_id) is not bool and image_id in images:
        return image_id
    number = item.get("id") if isinstance(item, dict) else None
    raise UserError(
        f"{path}: annotation {number} is about image {image_id!r}, which `images` does not list"
    )


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)
