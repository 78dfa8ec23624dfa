"""Stage: referring expressions of the data's images, with the mask of what each means."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated

from pydantic import Field, RootModel

from vista.config.data import RefCocoData
from vista.config.drawn import DrawnData
from vista.data.expression_sources import drawn_expressions, refcoco_expressions
from vista.data.expressions import FILE, write_expressions
from vista.data.records import read_records
from vista.data.source import resolve
from vista.engine.artifacts import Artifact
from vista.engine.forecast.need import START, Need
from vista.engine.forecast.shapes import Shapes, one
from vista.engine.forecast.shared import table_need
from vista.engine.job import StageJob, stage
from vista.engine.node import Node
from vista.errors import UserError
from vista.progress import progress

_IMAGE = 1e-3  # s to make the expressions of an image: 3.4 s for 3,700 drawn ones measured


class ExpressionsOrder(RootModel[Annotated[DrawnData | RefCocoData, Field(discriminator="kind")]]):
    """Data that have expressions."""


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """The records of the data, and the fetched files that the data lie in."""

    records: Artifact
    fetched: Artifact | None = None


@stage(ExpressionsOrder, Inputs)
def run(job: StageJob[ExpressionsOrder, Inputs]) -> None:
    """Read the records, and the files of references if the data have them; write
    expressions.parquet. Raises UserError where there is no expression."""
    records = read_records(job.inputs.records.file("records.parquet"))
    settings = job.settings.root
    if isinstance(settings, DrawnData):
        expressions = drawn_expressions(settings, records)
    else:
        fetched = job.inputs.fetched
        files = resolve(settings, fetched.folder("data") if fetched else None)
        assert isinstance(files, RefCocoData)
        expressions = refcoco_expressions(files, records)
    shown = progress(expressions, desc="expressions", unit="expression")
    if not write_expressions(job.work / FILE, shown):
        raise UserError("`data` has no referring expression: check its references")


def need(node: Node, shapes: Shapes) -> Need:
    """Disk and time: a few rows an image."""
    images = shapes.images(one(node, "records"))
    seconds = None if images is None else START + _IMAGE * images.total
    return replace(table_need(images), seconds=seconds)
