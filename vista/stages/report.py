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
from vista.metrics.intervention import InterventionResult
from vista.metrics.results import figures_table, read_figures, read_result, write_parquet
from vista.metrics.sae_check import check_figures
from vista.progress import progress
from vista.report.figures import Curve
from vista.report.interventions import STAGES, Intervention
from vista.report.summary import FIGURES, HEADLINE, headline, summary_markdown
from vista.report.table import LongTable
from vista.stages.intervention_inputs import chosen_scores
from vista.stages.report_inputs import (
    Inputs,
    LlmPlace,
    MetricPlace,
    PointPlace,
    ReportOrder,
    aligned,
)

# Metrics with the columns of their figures, as `aligned` gives them.
Metrics = Sequence[tuple[MetricPlace, Artifact]]

# Pictures that stages of metrics draw, by stage: a pattern of file names, and what they show.
PICTURES = {
    "monosemanticity": ("top_images.png", "Top images of the most monosemantic latents"),
    "diffusion_steering": ("grids/*.png", "Images of one noise, steered to a value by coefficient"),
}


@stage(ReportOrder, Inputs)
def run(job: StageJob[ReportOrder, Inputs]) -> None:
    """Read everything that the run measured; write summary.{csv,parquet,md} and figures/."""
    order, inputs = job.settings, job.inputs
    settings = order.report
    metrics = aligned(order.points, inputs.metrics)
    table = LongTable(_figures(metrics, aligned(order.checks, inputs.checks)))
    (job.work / "summary.csv").write_text(table.csv(), encoding="utf-8")
    write_parquet(job.work / "summary.parquet", figures_table(table.figures))
    interventions = _interventions(metrics)
    folder = job.work / FIGURES
    folder.mkdir(exist_ok=True)
    pictures = [*_draw(job, table, interventions, folder), *_copy_pictures(metrics, folder)]
    text = summary_markdown(
        table,
        settings,
        name=order.name,
        figures=pictures,
        notes=_notes(metrics),
        interventions=interventions,
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
            for figure in check_figures(check, "sae_text", check["layer"], "text")
        ]
    return figures


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


def _draw(
    job: StageJob[ReportOrder, Inputs],
    table: LongTable,
    interventions: list[Intervention],
    folder: Path,
) -> list[tuple[str, str]]:
    """Write every figure that there are data for; return PNG names and what they show."""
    from vista.report import figures, style
    from vista.report.interventions_figure import coefficient_response
    from vista.report.probing import probing_figures
    from vista.stages.report_heatmaps import Drawing, heat_map_figures

    settings = job.settings.report
    curves = _curves(aligned(job.settings.curves, job.inputs.projectors))
    drawings: list[Drawing] = [
        (
            "matching_rate",
            "Matching rate per layer, with and without the SAE term",
            lambda: figures.matching_per_layer(table, settings.top_k),
        ),
        (
            "reconstruction_fvu",
            "Variance of visual tokens that the SAE leaves unexplained, per layer",
            lambda: figures.reconstruction_per_layer(table, "fvu"),
        ),
        (
            "reconstruction_l0",
            "Active latents of a visual token, per layer",
            lambda: figures.reconstruction_per_layer(table, "l0"),
        ),
        (
            "localization",
            "Localization per encoder, with chance levels",
            lambda: figures.localization_per_encoder(table),
        ),
        (
            "interventions",
            "Removal and replacement score by coefficient, a line a method",
            lambda: coefficient_response(interventions),
        ),
        *probing_figures(table, settings.top_k),
        *heat_map_figures(job.settings, job.inputs),
        (
            "training",
            "Losses while the projectors were trained",
            lambda: figures.loss_curves(curves),
        ),
    ]
    shown = []
    for name, what, draw in progress(drawings, desc="figures", unit="figure"):
        figure = draw()
        if figure is not None:
            png, _ = style.save(figure, folder, name, settings.dpi)
            shown.append((png, what))
    return shown


def _copy_pictures(metrics: Metrics, folder: Path) -> Iterator[tuple[str, str]]:
    """Copy the pictures that stages of metrics drew; yield their names and what they show."""
    for place, artifact in metrics:
        pattern, what = PICTURES.get(place.metric, ("", ""))
        names = [name for name in artifact.checksums if pattern and fnmatch(name, pattern)]
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
    notes: list[str] = []
    for place, artifact in metrics:
        if place.metric == "matching_rate":
            result = read_result(artifact)
            judged = (
                "the image itself, and for the shuffled level one other image"
                if result["evidence"] == "image"
                else f"the names of its objects ({result['n_categories']} classes; "
                f"{result['n_without_objects']} images without objects left out)"
            )
            notes.append(
                "Matching rate: latents active in more than "
                f"{100 * result['max_image_share']:g} % of the images or on more than "
                f"{100 * result['max_label_density']:g} % of the text tokens are masked "
                f"(published: 5 % and 0.5 %); judge `{result['judge']}`, {result['n_images']} "
                f"images, labels judged against {judged}."
            )
        if place.metric == "judge_agreement":
            judges = read_result(artifact)["judges"]
            named = ", ".join(f"{name}: `{full}`" for name, full in sorted(judges.items()))
            notes.append(f"Judges that were measured: {named}.")
        if place.metric == "ontology" and (lacking := read_result(artifact)["unknown"]):
            notes.append(f"Ontology: WordNet lacks {', '.join(lacking)}, which are left out.")
        if place.metric == "logit_lens":
            result = read_result(artifact)
            notes.append(
                f"Logit lens: {result['n_one_token']} of {result['n_categories']} object names are "
                f"one token of {place.llm}; of the others no single word can be read."
            )
        if place.metric == "localization":
            result = read_result(artifact)
            notes.append(
                f"Pointing game: boxes of a class touch {result['min_patches']} to "
                f"{result['max_patches']} of {result['n_patches']} patches (published: 5 to 200 of "
                f"256), {result['n_targets_in_limits']} of {result['n_targets']} class instances."
            )
        if place.metric in STAGES:
            result = read_result(artifact)
            notes.append(
                f"Interventions ({result['task']}): judge `{result['judge']}`, coefficients chosen "
                f"on {result['n_development']} development items, {result['n_items']} test items "
                f"of {result['n_images']} images; {result['n_attributes']} attribute words count "
                "as details beside object names."
            )
    return list(dict.fromkeys(notes))
