"""Referring expressions of data that have them: drawn scenes, and RefCOCO's files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from vista.config.data import SPLITS, RefCocoData
from vista.config.drawn import DrawnData
from vista.data.expressions import Expression
from vista.data.jsonfile import get_identifier, stream_key
from vista.data.masks import Rle, decode_mask, encode_mask
from vista.data.readers.coco import segmentation_mask
from vista.data.records import Record, RecordTable
from vista.data.references import Reference, image_splits, read_references, split_of
from vista.data.scenes import COLOURS, Scene
from vista.data.world import make_library, split_scenes
from vista.errors import UserError
from vista.foreign.text import one_line

# Of the streams of a world's random numbers the one that its expressions draw from.
_STREAM = 100


def drawn_expressions(settings: DrawnData, records: RecordTable) -> Iterator[Expression]:
    """Yield the expressions of a drawn world, image by image.

    Of each object "the red cup" and "the red cup at top left"; of scenes with several objects one
    expression for all of them; and of each scene one for an object that it does not show. A scene
    has no noun twice, so each means what it says.

    Raises:
        ValueError: The records are not those of this world.
    """
    library = make_library(settings)
    for split in SPLITS:
        rows = records.rows_of(split)
        scenes = split_scenes(settings, library, settings.seed, split)
        for row, scene in zip(rows, scenes, strict=True):
            record = records[int(row)]
            if [item.category for item in record.objects] != [o.noun for o in scene.objects]:
                raise ValueError(f"image {record.image_id} shows other objects than its scene")
            rng = np.random.default_rng([settings.seed, _STREAM, int(row)])
            yield from scene_expressions(record, scene, library.nouns, rng)


def scene_expressions(
    record: Record, scene: Scene, nouns: Sequence[str], rng: np.random.Generator
) -> Iterator[Expression]:
    """Yield the expressions of one scene; its objects are those of the record, in this order."""
    names = [f"the {item.colour} {item.noun}" for item in scene.objects]
    for name, item, shown in zip(names, scene.objects, record.objects, strict=True):
        for text in (name, f"{name} at {item.place}"):
            yield _expression(record, text, [shown.rle])
    if len(names) > 1:
        yield _expression(record, " and ".join(names), [item.rle for item in record.objects])
    absent = sorted(set(nouns) - {item.noun for item in scene.objects})
    if absent:
        colour, noun = COLOURS[rng.integers(len(COLOURS))], absent[rng.integers(len(absent))]
        yield _expression(record, f"the {colour} {noun}", [])


def refcoco_expressions(settings: RefCocoData, records: RecordTable) -> Iterator[Expression]:
    """Yield the expressions of the images that have records, in the order of the files.

    Those of another split than their image's are left out.

    Raises:
        UserError: A reference is about an annotation that the instances do not list, or that has no
            mask; or as the readers of these files do.
    """
    paths = [Path(name) for name in settings.references]
    splits = image_splits(read_references(paths))
    row_of = {image: row for row, image in enumerate(records.image_ids(np.arange(len(records))))}
    known = [
        reference
        for reference in read_references(paths)
        if reference.image_id in row_of
        and reference.run_split == split_of(splits[reference.image_id])
    ]
    masks = _annotation_masks(Path(settings.instances), known, records, row_of)
    for reference in known:
        record = records[row_of[reference.image_id]]
        targets = [masks[target] for target in reference.targets]
        for text in reference.texts:
            yield _expression(record, text, targets)


def _annotation_masks(
    path: Path, references: Sequence[Reference], records: RecordTable, row_of: dict[str, int]
) -> dict[str, Rle]:
    """Return the mask of each annotation that is referred to."""
    image_of = {target: ref.image_id for ref in references for target in ref.targets}
    masks: dict[str, Rle] = {}
    for item in stream_key(path, "annotations"):
        annotation = get_identifier(item, "id", path)
        if annotation not in image_of:
            continue
        image = get_identifier(item, "image_id", path)
        if image != image_of[annotation]:
            raise UserError(
                f"{path}: annotation {one_line(annotation)} is of image {one_line(image)}, an "
                f"expression has it in image {one_line(image_of[annotation])}: take the instances "
                "that belong to these references"
            )
        record = records[row_of[image]]
        mask = segmentation_mask(item, (record.width, record.height), path)
        if mask is None:
            raise UserError(
                f"{path}: annotation {one_line(annotation)} has no segmentation, but an expression "
                "refers to it"
            )
        masks[annotation] = mask
    if missing := sorted(set(image_of) - set(masks)):
        raise UserError(
            f"{path} lists no annotation {one_line(missing[0])}, which an expression refers to: "
            "take the instances that belong to these references"
        )
    return masks


def _expression(record: Record, text: str, masks: Sequence[Rle | None]) -> Expression:
    union_hw = np.zeros((record.height, record.width), dtype=np.bool_)
    for rle in masks:
        if rle is None:
            raise ValueError(f"an object of image {record.image_id} has no mask")
        union_hw |= decode_mask(rle)
    return Expression(record.image_id, text, len(masks), encode_mask(union_hw))
