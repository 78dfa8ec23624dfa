"""Stage: the language corpus as one table."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import RootModel

from vista.config.data import CaptionsText, LinesText, TextSettings
from vista.data.lines import read_lines
from vista.data.records import read_records, write_text
from vista.data.source import caption_texts, line_texts
from vista.engine.artifacts import Artifact
from vista.engine.forecast.need import ROW, Need
from vista.engine.forecast.shapes import Shapes, one
from vista.engine.forecast.shared import table_need
from vista.engine.job import StageJob, stage
from vista.engine.node import Node


class TextOrder(RootModel[TextSettings]):
    """A corpus of any kind."""


@dataclass(frozen=True)
class Inputs:
    """The drawn world, or the records, that the texts come from."""

    world: Artifact | None = None
    records: Artifact | None = None


@stage(TextOrder, Inputs)
def run(job: StageJob[TextOrder, Inputs]) -> None:
    """Read the `world`'s documents, the `records`' captions or the user's text files; write
    text.parquet."""
    settings = job.settings.root
    if isinstance(settings, LinesText):
        texts = line_texts(settings)
    elif isinstance(settings, CaptionsText):
        assert job.inputs.records is not None
        table = read_records(job.inputs.records.file("records.parquet"))
        texts = caption_texts(table, settings.limit)
    else:
        world = job.inputs.world
        assert world is not None
        texts = {
            split: read_lines(world.file(f"text/{split}.txt")) for split in ("train", "heldout")
        }
    write_text(job.work / "text.parquet", texts)


def need(node: Node, shapes: Shapes) -> Need:
    """Disk: drawn documents or captions by their number, the user's text files by their size."""
    world, captioned = one(node, "world"), one(node, "records")
    if world is not None:
        return Need(disk=ROW * sum(world.settings["documents"].values()))
    if captioned is not None:
        return table_need(shapes.images(captioned))
    files = [Path(name) for name in node.files]
    there = bool(files) and all(file.is_file() for file in files)
    return Need(disk=sum(file.stat().st_size for file in files) if there else None)
