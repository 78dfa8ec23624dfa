"""Stage: COCO, LLaVA, folder or WebDataset data as one table."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace

from pydantic import RootModel

from vista.config.data import RecordsSettings
from vista.data.records import write_records
from vista.data.skipped import Skipped
from vista.data.source import iterate_records
from vista.engine.artifacts import Artifact
from vista.engine.forecast.need import START, Need
from vista.engine.forecast.shapes import Shapes
from vista.engine.forecast.shared import table_need
from vista.engine.job import StageJob, stage
from vista.engine.node import Node
from vista.errors import UserError
from vista.progress import progress

_RECORD = 3.5e-4  # s to read an image's record and write it: 2.3 s for 3,700 measured


class RecordsOrder(RootModel[RecordsSettings]):
    """Data of any kind."""


@dataclass(frozen=True)
class Inputs:
    """The scenes that the run made, or the fetched files, that the data lie in."""

    world: Artifact | None = None
    fetched: Artifact | None = None


@stage(RecordsOrder, Inputs)
def run(job: StageJob[RecordsOrder, Inputs]) -> None:
    """Read the `world`, if the run makes the scenes, the `fetched` files or the user's own; write
    records.parquet and, if rows were left out, skipped.parquet."""
    world, fetched = job.inputs.world, job.inputs.fetched
    if world is not None:
        # Every file: damaged scenes have to be made again, none of its images may be left out.
        world.folder("annotations")
        world.folder("images")
    skipped = Skipped()
    records = iterate_records(
        job.settings.root,
        world.path if world else None,
        fetched.folder("data") if fetched else None,
        skipped,
        job.threads,
    )
    count = write_records(
        job.work / "records.parquet", progress(records, desc="records", unit="image")
    )
    for reason, number in skipped.counts().items():
        print(f"records: {number} rows left out ({reason})", file=sys.stderr)
    for note, number in sorted(skipped.notes.items()):
        print(f"records: {number} {note}", file=sys.stderr)
    if count == 0:
        raise UserError("`data` gives no image at all: check its files and fractions")
    if skipped.rows:
        skipped.write(job.work / "skipped.parquet")


def need(node: Node, shapes: Shapes) -> Need:
    """Disk and time: a row an image."""
    images = shapes.images(node)
    seconds = None if images is None else START + _RECORD * images.total
    return replace(table_need(images), seconds=seconds)
