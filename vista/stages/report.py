"""Stage: write the long table, the readable summary and the figures of a run."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path

from vista.engine.artifacts import Artifact
from vista.engine.job import StageJob, stage
from vista.metrics.intervention import InterventionResult
from vista.metrics.results import figures_table, read_result, write_parquet
from vista.progress import progress
from vista.report.inputs import Inputs, PointPlace, ReportOrder, aligned, read_measured
from vista.report.interventions import STAGES, Intervention
from vista.report.shown import Drawing, Measured, MetricPlace
from vista.report.summary import FIGURES, HEADLINE, headline, summary_markdown
from vista.report.training_figure import loss_curves, read_curves
from vista.stages.intervention_inputs import chosen_scores

# The artifacts of metrics with the columns of their figures.
Metrics = Sequence[tuple[MetricPlace, Artifact]]


@stage(ReportOrder, Inputs)
def run(job: StageJob[ReportOrder, Inputs]) -> None:
    """Read everything that the run measured; write summary.{csv,parquet,md} and figures/."""
    order, inputs = job.settings, job.inputs
    settings = order.report
    measured = read_measured(order, inputs)
    table, metrics = measured.table, measured.metrics
    (job.work / "summary.csv").write_text(table.csv(), encoding="utf-8")
    write_parquet(job.work / "summary.parquet", figures_table(table.figures))
    interventions = _interventions(metrics)
    folder = job.work / FIGURES
    folder.mkdir(exist_ok=True)
    drawings = _drawings(job, measured, interventions)
    pictures = [*_draw(drawings, folder, settings.dpi), *_copy_pictures(metrics, folder)]
    text = summary_markdown(
        measured,
        name=order.name,
        figures=pictures,
        notes=_notes(metrics),
        interventions=interventions,
    )
    (job.work / "summary.md").write_text(text, encoding="utf-8")
    (job.work / HEADLINE).write_text(headline(table, settings), encoding="utf-8")


def _interventions(metrics: Metrics) -> list[Intervention]:
    """Every removal and replacement of the run, with the score of each item."""
    interventions = []
    for place, artifact in metrics:
        if place.metric not in STAGES:
            continue
        point = PointPlace.model_validate(place.model_dump(exclude={"metric", "method"}))
        assert place.method is not None
        interventions.append(
            Intervention(
                **point.model_dump(),
                method=place.method,
                result=InterventionResult.model_validate(read_result(artifact)),
                scores=chosen_scores(artifact),
            )
        )
    return interventions


def _drawings(
    job: StageJob[ReportOrder, Inputs], measured: Measured, interventions: list[Intervention]
) -> list[Drawing]:
    """Return all figures of the report in their order."""
    from vista.report.contents import all_drawings
    from vista.report.heatmaps import heat_maps

    order, inputs = job.settings, job.inputs
    curves = read_curves(aligned(order.curves, inputs.projectors))
    return [
        *all_drawings(measured, interventions),
        *heat_maps(order, inputs),
        Drawing(
            "training",
            "Losses while the projectors were trained",
            lambda: loss_curves(curves),
        ),
    ]


def _draw(drawings: Sequence[Drawing], folder: Path, dpi: int) -> Iterator[tuple[str, str]]:
    """Write every figure that there are data for; yield PNG names and what they show."""
    from vista.report import style

    for drawing in progress(drawings, desc="figures", unit="figure"):
        figure = drawing.draw()
        if figure is not None:
            png, _ = style.save(figure, folder, drawing.name, dpi)
            yield png, drawing.caption


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


def _notes(metrics: Metrics) -> list[str]:
    """Sentences on masks, limits and judges, from the metrics' results."""
    from vista.report.contents import shown_metrics

    shown = shown_metrics({place.metric for place, _ in metrics})
    notes: list[str] = []
    for place, artifact in metrics:
        if place.metric in shown:
            note = shown[place.metric].note(place, read_result(artifact))
            notes += [] if note is None else [note]
        if place.metric in STAGES:
            result = read_result(artifact)
            notes.append(
                f"Interventions ({result['task']}): judge `{result['judge']}`, coefficients chosen "
                f"on {result['n_development']} development items, {result['n_items']} test items "
                f"of {result['n_images']} images; {result['n_attributes']} attribute words count "
                "as details beside object names."
            )
    return list(dict.fromkeys(notes))
