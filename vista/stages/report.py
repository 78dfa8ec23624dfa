"""Stage: the long table, the readable summary and the figures of a run.

Inputs, each a list with a list of the same length in the settings that says what it is:

    metrics     points    {metric (stage), encoder, llm, sae_weight, seed, method}, null where none
                          applies; method of interventions only
    checks      checks    {llm}
    projectors  curves    {encoder, llm, sae_weight, seed}, one for each stage of training
    latents     latents   {encoder, llm, sae_weight, seed}
    labels      labels    {llm}
    features    features  {encoder}

and the single inputs `records` and, where the images lie in one, `world` or `fetched`. All but
`metrics` may be missing: without latents, labels, features and records there are no heat maps.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import asdict
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from vista.config.report import ReportSettings
from vista.engine.artifacts import Artifact, Job
from vista.metrics.intervention import InterventionResult
from vista.metrics.sae_check import check_rows
from vista.progress import progress
from vista.report.figures import Curve
from vista.report.interventions import STAGES, Intervention
from vista.report.summary import FIGURES, HEADLINE, headline, summary_markdown
from vista.report.table import COLUMNS, Figure, LongTable, figures_of
from vista.stages.intervention_inputs import chosen_scores
from vista.stages.results import ROW_SCHEMA, read_result, read_rows, write_parquet

_TABLE_SCHEMA = pa.schema(
    [
        pa.field("encoder", pa.string()),
        pa.field("llm", pa.string()),
        pa.field("sae_weight", pa.float64()),
        pa.field("seed", pa.int64()),
        pa.field("method", pa.string()),
        *ROW_SCHEMA,
    ]
)

# What metrics draw themselves, by stage: the files, and what they show.
PICTURES = {
    "monosemanticity": ("top_images.png", "Top images of the most monosemantic latents"),
    "diffusion_steering": ("grids/*.png", "Images of one noise, steered to a value by coefficient"),
}


def run(job: Job) -> None:
    """Read everything that the run measured; write summary.{csv,parquet,md} and figures/."""
    settings = ReportSettings.model_validate(job.settings["report"])
    table = LongTable(_figures(job))
    (job.work / "summary.csv").write_text(table.csv(), encoding="utf-8")
    schema = pa.schema([_TABLE_SCHEMA.field(name) for name in COLUMNS])
    write_parquet(
        job.work / "summary.parquet", pa.Table.from_pylist(list(table.records()), schema=schema)
    )
    interventions = _interventions(job)
    pictures = _draw(job, settings, table, interventions)
    text = summary_markdown(
        table,
        settings,
        name=str(job.settings["name"]),
        figures=pictures,
        notes=_notes(job),
        interventions=interventions,
    )
    (job.work / "summary.md").write_text(text, encoding="utf-8")
    (job.work / HEADLINE).write_text(headline(table, settings), encoding="utf-8")


def aligned(job: Job, role: str, key: str) -> list[tuple[dict[str, Any], Artifact]]:
    """Return the artifacts of a role, each with its entry of the settings' list `key`."""
    if role not in job.inputs:
        return []
    return list(zip(job.settings[key], job.input_list(role), strict=True))


def _figures(job: Job) -> list[Figure]:
    figures = []
    for point, artifact in aligned(job, "metrics", "points"):
        figures += figures_of(point, read_rows(artifact))
    for entry, artifact in aligned(job, "checks", "checks"):
        figures += _check_figures(entry, read_result(artifact))
    return figures


def _check_figures(entry: dict[str, Any], check: dict[str, Any]) -> list[Figure]:
    """Turn the gate's figures on held-out text into rows."""
    rows = check_rows(check, "sae_text", check["layer"], "text")
    return figures_of({"metric": "check_sae", "llm": entry["llm"]}, map(asdict, rows))


def _interventions(job: Job) -> list[Intervention]:
    """Every removal and replacement of the run, with its scores an item."""
    return [
        Intervention(
            encoder=point["encoder"],
            llm=point["llm"],
            sae_weight=float(point["sae_weight"]),
            seed=int(point["seed"]),
            method=point["method"],
            result=InterventionResult.model_validate(read_result(artifact)),
            scores=chosen_scores(artifact),
        )
        for point, artifact in aligned(job, "metrics", "points")
        if point["metric"] in STAGES
    ]


def _draw(
    job: Job, settings: ReportSettings, table: LongTable, interventions: list[Intervention]
) -> list[tuple[str, str]]:
    """Write every figure that there are data for; returns PNG names and what they show."""
    from vista.report import figures, style
    from vista.report.interventions_figure import coefficient_response
    from vista.report.probing import probing_figures
    from vista.stages.report_heatmaps import Drawing, heat_map_figures

    folder = job.work / FIGURES
    folder.mkdir(exist_ok=True)
    curves = _curves(job)
    jobs: list[Drawing] = [
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
        *heat_map_figures(job, settings),
        (
            "training",
            "Losses while the projectors were trained",
            lambda: figures.loss_curves(curves),
        ),
    ]
    shown = []
    for name, what, draw in progress(jobs, desc="figures", unit="figure"):
        figure = draw()
        if figure is not None:
            png, _ = style.save(figure, folder, name, settings.dpi)
            shown.append((png, what))
    return [*shown, *_pictures(job, folder)]


def _pictures(job: Job, folder: Path) -> Iterator[tuple[str, str]]:
    """Copy the pictures that metrics drew themselves; yields their names and what they show."""
    for point, artifact in aligned(job, "metrics", "points"):
        pattern, what = PICTURES.get(point["metric"], ("", ""))
        names = [name for name in artifact.checksums if pattern and fnmatch(name, pattern)]
        for name in sorted(names):
            copy = f"{artifact.path.parent.name}-{artifact.path.name}-{Path(name).name}"
            shutil.copyfile(artifact.file(name), folder / copy)
            yield copy, f"{what} ({point['encoder']}, {point['method']})"


def _curves(job: Job) -> list[Curve]:
    """The curve of each projector that was trained here; stages of training follow one another."""
    joined: dict[tuple[str, str, float, int], dict[str, list[float]]] = {}
    for entry, artifact in aligned(job, "projectors", "curves"):
        point = entry["encoder"], entry["llm"], float(entry["sae_weight"]), int(entry["seed"])
        columns = joined.setdefault(point, {})
        before = len(columns.get("step", ()))
        for name, values in pq.read_table(artifact.file("curve.parquet")).to_pydict().items():
            shift = before if name == "step" else 0
            columns.setdefault(name, []).extend(value + shift for value in values)
    return [Curve(*point, columns) for point, columns in joined.items()]


def _notes(job: Job) -> list[str]:
    """Sentences on what the masks and limits were, from the metrics' own results."""
    notes: list[str] = []
    for point, artifact in aligned(job, "metrics", "points"):
        if point["metric"] == "matching_rate":
            found = read_result(artifact)
            judged = (
                "the image itself, and for the shuffled level one other image"
                if found["evidence"] == "image"
                else f"the names of its objects ({found['n_categories']} classes; "
                f"{found['n_without_objects']} images without objects left out)"
            )
            notes.append(
                "Matching rate: latents active in more than "
                f"{100 * found['max_image_share']:g} % of the images or on more than "
                f"{100 * found['max_label_density']:g} % of the text tokens are masked (published: "
                f"5 % and 0.5 %); judge `{found['judge']}`, {found['n_images']} images, labels "
                f"judged against {judged}."
            )
        if point["metric"] == "judge_agreement":
            judges = read_result(artifact)["judges"]
            named = ", ".join(f"{name}: `{full}`" for name, full in sorted(judges.items()))
            notes.append(f"Judges that were measured: {named}.")
        if point["metric"] == "ontology" and (lacking := read_result(artifact)["unknown"]):
            notes.append(f"Ontology: WordNet lacks {', '.join(lacking)}, which are left out.")
        if point["metric"] == "logit_lens":
            found = read_result(artifact)
            notes.append(
                f"Logit lens: {found['n_one_token']} of {found['n_categories']} object names are "
                f"one token of {point['llm']}; of the others no single word can be read."
            )
        if point["metric"] == "localization":
            found = read_result(artifact)
            notes.append(
                f"Pointing game: boxes of a class touch {found['min_patches']} to "
                f"{found['max_patches']} of {found['n_patches']} patches (published: 5 to 200 of "
                f"256), {found['n_targets_in_limits']} of {found['n_targets']} class instances."
            )
        if point["metric"] in STAGES:
            found = read_result(artifact)
            notes.append(
                f"Interventions ({found['task']}): judge `{found['judge']}`, coefficients chosen "
                f"on {found['n_development']} development items, {found['n_items']} test items of "
                f"{found['n_images']} images; {found['n_attributes']} attribute words count as "
                "details beside object names."
            )
    return list(dict.fromkeys(notes))
