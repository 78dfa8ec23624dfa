"""Stage: the language corpus as one table."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from pydantic import RootModel

from vista.config.published import package_bytes
from vista.config.text import (
    CaptionsText,
    DrawnText,
    JsonText,
    LinesText,
    MixedText,
    OneText,
    TextSettings,
)
from vista.data.corpora import (
    SPLITS,
    Texts,
    divide,
    gloss_documents,
    json_documents,
    mix,
    refuse_empty_splits,
    size_of,
)
from vista.data.lines import read_lines
from vista.data.records import read_records, write_text
from vista.data.source import caption_texts, line_texts
from vista.engine.artifacts import Artifact
from vista.engine.forecast.need import ROW, Need
from vista.engine.forecast.shapes import Shapes, all_known, many, one
from vista.engine.forecast.shared import table_need
from vista.engine.job import StageJob, stage
from vista.engine.node import Node
from vista.inputs.package_files import package_file, package_of


class TextOrder(RootModel[TextSettings]):
    """A corpus of any kind."""


@dataclass(frozen=True)
class Inputs:
    """The drawn world, the records or the packages that the texts come from."""

    world: Artifact | None = None
    records: Artifact | None = None
    packages: list[Artifact] = field(default_factory=list)


@stage(TextOrder, Inputs)
def run(job: StageJob[TextOrder, Inputs]) -> None:
    """Read the `world`'s documents, the `records`' captions, the user's text files or those of
    `packages`; write text.parquet, and print how many documents and words there are."""
    settings = job.settings.root
    if isinstance(settings, MixedText):
        parts = []
        for part in settings.parts:
            parts.append(_texts(part, job.inputs))
            print(f"text of kind {part.kind}: {size_of(parts[-1])}")
        texts = mix(parts, settings.seed, settings.limit, settings.words)
    else:
        texts = _texts(settings, job.inputs)
    print(f"text: {size_of(texts)}")
    write_text(job.work / "text.parquet", texts)


def _texts(settings: OneText, inputs: Inputs) -> Texts:
    """Return the documents of one corpus by split."""
    if isinstance(settings, LinesText):
        return line_texts(settings)
    if isinstance(settings, CaptionsText):
        assert inputs.records is not None
        return caption_texts(read_records(inputs.records.file("records.parquet")), settings.limit)
    if isinstance(settings, DrawnText):
        world = inputs.world
        assert world is not None
        return {split: read_lines(world.file(f"text/{split}.txt")) for split in SPLITS}
    package = package_of(inputs.packages, settings.package)
    if isinstance(settings, JsonText):
        path = package_file(package, settings.file, "text.file")
        documents = json_documents(path, settings.key)
    else:
        documents = gloss_documents(
            package_file(package, path, "text.folder") for path in settings.paths()
        )
    texts = divide(documents, settings.heldout, settings.limit)
    refuse_empty_splits(texts)
    return texts


def need(node: Node, shapes: Shapes) -> Need:
    """Disk: drawn documents or captions by their number, the user's text files and packages by
    their size."""
    world, captioned, files = one(node, "world"), one(node, "records"), map(Path, node.files)
    parts: list[float | None] = [
        *(package_bytes(package.order["package"]) for package in many(node, "packages")),
        *(file.stat().st_size if file.is_file() else None for file in files),
    ]
    if world is not None:
        parts.append(ROW * sum(world.settings["documents"].values()))
    if captioned is not None:
        parts.append(table_need(shapes.images(captioned)).disk)
    known = all_known(parts)
    return Need(disk=sum(known) if known else None)
