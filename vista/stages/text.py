"""Stage: the language corpus as one table."""

from __future__ import annotations

from vista.artifacts import Job
from vista.config.data import TEXT_SETTINGS, LinesText
from vista.data.records import write_text
from vista.data.source import line_texts, read_lines


def run(job: Job) -> None:
    """Read the `world`'s documents or the user's text files; write text.parquet."""
    settings = TEXT_SETTINGS.validate_python(job.settings)
    if isinstance(settings, LinesText):
        texts = line_texts(settings)
    else:
        world = job.input("world")
        texts = {
            split: read_lines(world.file(f"text/{split}.txt")) for split in ("train", "heldout")
        }
    write_text(job.work / "text.parquet", texts)
