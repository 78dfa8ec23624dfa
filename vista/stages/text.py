"""Stage: the language corpus as one table."""

from __future__ import annotations

from vista.config.data import TEXT_SETTINGS, CaptionsText, LinesText
from vista.data.lines import read_lines
from vista.data.records import read_records, write_text
from vista.data.source import caption_texts, line_texts
from vista.engine.artifacts import Job


def run(job: Job) -> None:
    """Read the `world`'s documents, the `records`' captions or the user's text files; write
    text.parquet."""
    settings = TEXT_SETTINGS.validate_python(job.settings)
    if isinstance(settings, LinesText):
        texts = line_texts(settings)
    elif isinstance(settings, CaptionsText):
        table = read_records(job.input("records").file("records.parquet"))
        texts = caption_texts(table, settings.limit)
    else:
        world = job.input("world")
        texts = {
            split: read_lines(world.file(f"text/{split}.txt")) for split in ("train", "heldout")
        }
    write_text(job.work / "text.parquet", texts)
