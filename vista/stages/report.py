"""Stage: write the long table, the readable summary and the figures of a run."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path

from vista.engine.forecast.need import START, Need
from vista.engine.forecast.shapes import Shapes
from vista.engine.job import StageJob, stage
from vista.engine.node import Node
from vista.metrics.results import figures_table, write_parquet
from vista.progress import progress
from vista.report.inputs import (
    Inputs,
    ReportOrder,
    aligned,
    read_measured,
)
from vista.report.shown import Drawing, Measured
from vista.report.suggestions import suggestion_notes
from vista.report.summary import FIGURES, HEADLINE, headline, summary_markdown

_REPORT = 1e7
_FIGURES = 4.0  # s to draw the figures: 2 to 4 measured


@stage(ReportOrder, Inputs)
def run(job: StageJob[ReportOrder, Inputs]) -> None:
    """Read everything that the run measured; write summary.{csv,parquet,md} and figures/."""
    from vista.report.contents import all_drawings, all_notes
    from vista.report.heatmaps import heat_maps
    from vista.report.training_figure import training_drawing

    order, inputs = job.settings, job.inputs
    measured = read_measured(order, inputs)
    (job.work / "summary.csv").write_text(measured.whole.csv(), encoding="utf-8")
    write_parquet(job.work / "summary.parquet", figures_table(measured.whole.figures))
    folder = job.work / FIGURES
    folder.mkdir(exist_ok=True)
    drawings = [
        *all_drawings(measured),
        *heat_maps(order, inputs),
        training_drawing(aligned(order.curves, inputs.projectors)),
    ]
    pictures = [*_draw(drawings, folder, order.report.dpi), *_copy_pictures(measured, folder)]
    notes = [*all_notes(measured), *suggestion_notes(measured)]
    text = summary_markdown(measured, name=order.name, figures=pictures, notes=notes)
    (job.work / "summary.md").write_text(text, encoding="utf-8")
    text = headline(measured.table, order.report, measured.groups)
    (job.work / HEADLINE).write_text(text, encoding="utf-8")


def _draw(drawings: Sequence[Drawing], folder: Path, dpi: int) -> Iterator[tuple[str, str]]:
    """Write every figure that there are data for; yield PNG names and what they show."""
    from vista.report import style

    for drawing in progress(drawings, desc="figures", unit="figure"):
        figure = drawing.draw()
        if figure is not None:
            png, _ = style.save(figure, folder, drawing.name, dpi)
            yield png, drawing.caption


def _copy_pictures(measured: Measured, folder: Path) -> Iterator[tuple[str, str]]:
    """Copy the pictures that stages of metrics drew; yield their names and what they show."""
    from vista.report.contents import shown_metrics

    shown = shown_metrics({place.metric for place, _ in measured.metrics})
    for place, artifact in measured.metrics:
        pictures = shown[place.metric].pictures if place.metric in shown else None
        if pictures is None:
            continue
        pattern, caption = pictures
        names = [name for name in artifact.checksums if fnmatch(name, pattern)]
        for name in sorted(names):
            copy = f"{artifact.path.parent.name}-{artifact.path.name}-{Path(name).name}"
            shutil.copyfile(artifact.file(name), folder / copy)
            yield copy, f"{caption} ({place.encoder}, {place.method})"


def need(_node: Node, _shapes: Shapes) -> Need:
    """Tables and figures."""
    return Need(disk=_REPORT, seconds=START + _FIGURES)
