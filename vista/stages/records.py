"""Stage: COCO, LLaVA, folder or WebDataset data as one table."""

from __future__ import annotations

import sys

from vista.config.data import DATA_SETTINGS
from vista.data.records import write_records
from vista.data.skipped import Skipped
from vista.data.source import iterate_records
from vista.engine.artifacts import Job
from vista.errors import UserError
from vista.progress import progress


def run(job: Job) -> None:
    """Read the `world`, if the data are drawn, the `fetched` files or the user's own; write
    records.parquet and, if rows were left out, skipped.parquet."""
    settings = DATA_SETTINGS.validate_python(job.settings)
    world, fetched = job.optional("world"), job.optional("fetched")
    if world is not None:
        # All of it: a damaged world is drawn again, none of its images may be left out.
        world.folder("annotations")
        world.folder("images")
    skipped = Skipped()
    records = iterate_records(
        settings,
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
