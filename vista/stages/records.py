"""Stage: COCO, LLaVA or folder data as one table."""

from __future__ import annotations

import sys
from collections import Counter

from vista.artifacts import Job
from vista.config.data import DATA_SETTINGS
from vista.data.records import write_records
from vista.data.source import iterate_records
from vista.errors import UserError
from vista.progress import progress


def run(job: Job) -> None:
    """Read the `world`, if the data are drawn, or the user's files; write records.parquet."""
    settings = DATA_SETTINGS.validate_python(job.settings)
    world = job.optional("world")
    if world is not None:
        world.folder("annotations")
    skipped: Counter[str] = Counter()
    records = iterate_records(settings, world.path if world else None, skipped)
    count = write_records(
        job.work / "records.parquet", progress(records, desc="records", unit="image")
    )
    for reason, number in sorted(skipped.items()):
        print(f"records: {number} rows left out ({reason})", file=sys.stderr)
    if count == 0:
        raise UserError("`data` gives no image at all: check its files and fractions")
