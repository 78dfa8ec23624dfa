"""COCO instance and caption files, and LLaVA conversations over the same images, as records."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vista.config.data import SPLITS, CocoData, CocoFiles
from vista.data.jsonfile import get_key, read_json
from vista.data.llava import conversation_turns
from vista.data.masks import Rle, decode_mask, encode_mask, polygons_to_mask
from vista.data.records import Box, ImageSource, Object, Record, Turn
from vista.data.splits import Splitter
from vista.errors import UserError


def coco_records(settings: CocoData) -> Iterator[Record]:
    """Records of a COCO data set, split by split, in the order of the files.

    Raises UserError naming file and id for a missing or unreadable image, an annotation or caption
    of an image that is not there, and a mask that does not fit its image.
    """
    source = ImageSource(Path(settings.images))
    if settings.splits is not None:
        for split in [name for name in SPLITS if name in settings.splits]:
            files = settings.splits[split]
            splitter = Splitter(split, settings.limit)
            yield from _file_records(settings, files, source, splitter)
    elif settings.files is not None:
        splitter = Splitter(settings.fractions, settings.limit)
        yield from splitter.in_split_order(
            _file_records(settings, settings.files, source, splitter)
        )


def _file_records(
    settings: CocoData, files: CocoFiles, source: ImageSource, splitter: Splitter
) -> Iterator[Record]:
    images: dict[int | str, dict[str, Any]] = {}
    captions: dict[int | str, list[str]] = {}
    annotations: dict[int | str, list[dict[str, Any]]] = {}
    categories: dict[int, str] = {}
    instances_path = Path(files.instances) if files.instances else None
    if instances_path is not None:
        content = read_json(instances_path, dict)
        images |= _images_by_id(content, instances_path)
        categories = {
            get_key(item, "id", int, instances_path): get_key(item, "name", str, instances_path)
            for item in get_key(content, "categories", list, instances_path)
        }
        for item in get_key(content, "annotations", list, instances_path):
            image_id = _known_image(item, images, instances_path)
            annotations.setdefault(image_id, []).append(item)
    if files.captions is not None:
        path = Path(files.captions)
        content = read_json(path, dict)
        # COCO lists the same images in both files; one file alone may list more.
        for image_id, image in _images_by_id(content, path).items():
            images.setdefault(image_id, image)
        for item in get_key(content, "annotations", list, path):
            image_id = _known_image(item, images, path)
            captions.setdefault(image_id, []).append(get_key(item, "caption", str, path).strip())
    turns = _turns_by_file(files, images)
    listed_in = Path(files.instances or files.captions or "")
    for image_id, image in images.items():
        split = splitter.split(str(image_id))
        if split is None:
            continue
        file_name = get_key(image, "file_name", str, listed_in)
        relative = f"{files.folder}/{file_name}" if files.folder else file_name
        try:
            width, height = source.size(relative)
        except UserError as error:
            raise UserError(f"{error} (image id {image_id} of {listed_in})") from error
        said = (image.get("width", width), image.get("height", height))
        if said != (width, height):
            raise UserError(
                f"{source.root / relative} is {width}x{height}, image id {image_id} of "
                f"{listed_in} is {said[0]}x{said[1]}: use the images that were annotated"
            )
        told = captions.get(image_id, [])
        if file_name in turns:
            said_turns = turns[file_name]
        else:
            said_turns = tuple(Turn(settings.question, caption) for caption in told[:1])
        yield Record(
            image_id=str(image_id),
            split=split,
            path=relative,
            width=width,
            height=height,
            captions=tuple(told),
            turns=said_turns,
            objects=tuple(
                _object(item, categories, width, height, instances_path)
                for item in annotations.get(image_id, [])
                if instances_path is not None
            ),
        )


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


def _turns_by_file(
    files: CocoFiles, images: dict[int | str, dict[str, Any]]
) -> dict[str, tuple[Turn, ...]]:
    if files.conversations is None:
        return {}
    path = Path(files.conversations)
    names = {get_key(image, "file_name", str, path) for image in images.values()}
    turns: dict[str, tuple[Turn, ...]] = {}
    for row in read_json(path, list):
        name = row.get("image") if isinstance(row, dict) else None
        if name is None:
            continue  # a row of text only belongs to no image
        if not isinstance(name, str) or name not in names:
            raise UserError(
                f"{path}: row {row.get('id')!r} is about image {name!r}, which the annotations "
                "do not list"
            )
        turns[name] = turns.get(name, ()) + conversation_turns(row, path)
    return turns


def _images_by_id(content: dict[str, Any], path: Path) -> dict[int | str, dict[str, Any]]:
    images: dict[int | str, dict[str, Any]] = {}
    for image in get_key(content, "images", list, path):
        image_id = image.get("id") if isinstance(image, dict) else None
        if not isinstance(image_id, int | str):
            raise UserError(f"{path}: an entry of `images` has no id")
        if image_id in images:
            raise UserError(f"{path}: image id {image_id} comes twice in `images`")
        images[image_id] = image
    return images


def _known_image(
    item: dict[str, Any], images: dict[int | str, dict[str, Any]], path: Path
) -> int | str:
    image_id = item.get("image_id") if isinstance(item, dict) else None
    if not isinstance(image_id, int | str) or image_id not in images:
        number = item.get("id") if isinstance(item, dict) else None
        raise UserError(
            f"{path}: annotation {number} is about image {image_id!r}, which `images` does not list"
        )
    return image_id


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
