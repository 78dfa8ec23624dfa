"""Stage: write the long table, the readable summary and the figures of a run."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path

import pyarrow.parquet as pq

from vista.engine.artifacts import Artifact
from vista.engine.job import StageJob, stage
from vista.metrics.figure import Figure
from vista.metrics.results import figures_table, read_figures, read_result, write_parquet
from vista.metrics.sae_check import TEXT_FIGURES, check_figures
from vista.progress import progress
from vista.report.shown import Drawing, Measured, MetricPlace
from vista.report.summary import FIGURES, HEADLINE, headline, summary_markdown
from vista.report.table import LongTable
from vista.report.training_figure import Curve, loss_curves
from vista.stages.report_inputs import (
    Inputs,
    LlmPlace,
    PointPlace,
    ReportOrder,
    aligned,
)

# Metrics with the columns of their figures, as `aligned` gives them.
Metrics = Sequence[tuple[MetricPlace, Artifact]]


@stage(ReportOrder, Inputs)
def run(job: StageJob[ReportOrder, Inputs]) -> None:
    """Read everything that the run measured; write summary.{csv,parquet,md} and figures/."""
    order, inputs = job.settings, job.inputs
    settings = order.report
    metrics = aligned(order.points, inputs.metrics)
    table = LongTable(_figures(metrics, aligned(order.checks, inputs.checks)))
    measured = Measured(table, settings, metrics)
    (job.work / "summary.csv").write_text(table.csv(), encoding="utf-8")
    write_parquet(job.work / "summary.parquet", figures_table(table.figures))
    folder = job.work / FIGURES
    folder.mkdir(exist_ok=True)
    pictures = [*_draw(job, measured, folder), *_copy_pictures(metrics, folder)]
    text = summary_markdown(
        measured,
        name=order.name,
        figures=pictures,
        notes=_notes(metrics),
    )
    (job.work / "summary.md").write_text(text, encoding="utf-8")
    (job.work / HEADLINE).write_text(headline(table, settings), encoding="utf-8")


def _figures(metrics: Metrics, checks: Sequence[tuple[LlmPlace, Artifact]]) -> list[Figure]:
    """All figures of the run's metrics, and of the checks of SAEs on held-out text."""
    figures = []
    for place, artifact in metrics:
        columns = place.model_dump(exclude={"metric"})
        figures += read_figures(artifact, stage=place.metric, **columns)
    for llm, artifact in checks:
        check = read_result(artifact)
        figures += [
            replace(figure, llm=llm.llm, stage="check_sae")
            for figure in check_figures(check, TEXT_FIGURES, check["layer"], "text")
        ]
    return figures


def _draw(
    job: StageJob[ReportOrder, Inputs],
    measured: Measured,
    folder: Path,
) -> list[tuple[str, str]]:
    """Write every figure that there are data for; return PNG names and what they show."""
    from vista.report import style
    from vista.report.contents import all_drawings
    from vista.stages.report_heatmaps import heat_map_figures

    settings = job.settings.report
    curves = _curves(aligned(job.settings.curves, job.inputs.projectors))
    drawings = [
        *all_drawings(measured),
        *heat_map_figures(job.settings, job.inputs),
        Drawing(
            "training",
            "Losses while the projectors were trained",
            lambda: loss_curves(curves),
        ),
    ]
    pictures = []
    for drawing in progress(drawings, desc="figures", unit="figure"):
        figure = drawing.draw()
        if figure is not None:
            png, _ = style.save(figure, folder, drawing.name, settings.dpi)
            pictures.append((png, drawing.caption))
    return pictures


def _copy_pictures(metrics: Metrics, folder: Path) -> Iterator[tuple[str, str]]:
    """Copy the pictures that stages of metrics drew; yield their names and what they show."""
    from vista.report.contents import shown_metrics

    shown = shown_metrics({place.metric for place, _ in metrics})
    for place, artifact in metrics:
        pictures = shown[place.metric].pictures if place.metric in shown else None
        if pictures is None:
            continue
        pattern, what = pictures
        names = [name for name in artifact.checksums if fnmatch(name, pattern)]
        for name in sorted(names):
            copy = f"{artifact.path.parent.name}-{artifact.path.name}-{Path(name).name}"
            shutil.copyfile(artifact.file(name), folder / copy)
            yield copy, f"{what} ({place.encoder}, {place.method})"


def _curves(trained: Sequence[tuple[PointPlace, Artifact]]) -> list[Curve]:
    """The curve of each trained projector, its stages of training joined in their order."""
    joined: dict[tuple[str, str, float, int], dict[str, list[float]]] = {}
    for place, artifact in trained:
        point = place.encoder, place.llm, place.sae_weight, place.seed
        columns = joined.setdefault(point, {})
        before = len(columns.get("step", ()))
        for name, values in pq.read_table(artifact.file("curve.parquet")).to_pydict().items():
            shift = before if name == "step" else 0
            columns.setdefault(name, []).extend(value + shift for value in values)
    return [Curve(*point, columns) for point, columns in joined.items()]


def _notes(metrics: Metrics) -> list[str]:
    """Sentences on masks, limits and judges, from the metrics' results."""
    from vista.report.contents import shown_metrics

    shown = shown_metrics({place.metric for place, _ in metrics})
    notes: list[str] = []
    for place, artifact in metrics:
        if place.metric in shown:
            note = shown[place.metric].note(place, read_result(artifact))
            notes += [] if note is None else [note]
    return list(dict.fromkeys(notes))
