"""RefCOCO, RefCOCO+, RefCOCOg and gRefCOCO: the images of COCO that have referring expressions."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path

from vista.config.data import CocoData, CocoFiles, RefCocoData
from vista.data.readers.coco import coco_records
from vista.data.records import Record
from vista.data.references import group_of, image_splits, read_references, split_of
from vista.data.skipped import Skipped
from vista.data.splits import Splitter, in_split_order


def refcoco_records(settings: RefCocoData, skipped: Skipped) -> Iterator[Record]:
    """Records of the images with expressions, split by split, in the order of the instances.

    Raises:
        UserError: As the readers of COCO's files and of references do.
    """
    splits = image_splits(read_references(map(Path, settings.references)))
    coco = CocoData(
        kind="coco",
        images=settings.images,
        splits={"test": CocoFiles(instances=settings.instances)},
        missing_images=settings.missing_images,
        max_unreadable=settings.max_unreadable,
    )
    splitters = {split: Splitter(split, settings) for split in map(split_of, splits.values())}
    yield from in_split_order(
        replace(record, split=split, group=group_of(splits[record.image_id]))
        for record in _listed(coco, skipped, splits)
        if (split := splitters[split_of(splits[record.image_id])].split(record.image_id))
    )


def _listed(settings: CocoData, skipped: Skipped, wanted: Collection[str]) -> Iterator[Record]:
    """The records of some images; those that the instances do not list are noted."""
    unlisted = set(wanted)
    for record in coco_records(settings, skipped):
        if record.image_id in unlisted:
            unlisted.remove(record.image_id)
            yield record
    unlisted -= {row for row, _, _ in skipped.rows}
    if unlisted:
        skipped.notes["images with expressions that the instances do not list"] += len(unlisted)
