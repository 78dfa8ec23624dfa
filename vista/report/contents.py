"""The contents of the report in their order: what metrics show, and what compares several."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

from vista.config.metric import metrics_with
from vista.metrics.results import read_result
from vista.report.collapse import collapse_section, collapses
from vista.report.comparison_section import comparison_section
from vista.report.controls_section import differences_section, floors_section
from vista.report.dictionary_conclusions import conclusions_section
from vista.report.encoder_differences import rankings_section
from vista.report.encoders_section import encoders_section
from vista.report.grid import Section
from vista.report.groups_section import groups_section
from vista.report.readouts_section import readouts_section
from vista.report.sections import check_section, how_to_read, naming_section
from vista.report.shown import Drawing, Measured, Shown
from vista.report.suggestions import tried_section
from vista.report.vision_sae_section import vision_sae_section

Part = TypeVar("Part")

# A metric that stands in neither list comes after those that do.
SECTIONS = (
    *("naming", "controls", "comparison", "matching_rate", "localization", "caption", "groups"),
    *("intervention", "reconstruction", "spliced_loss", "check_sae", "judge_agreement"),
    *("check_vision_sae", "sae_stability"),
    *("monosemanticity", "ood_detection", "ood_generalization", "ontology", "image_attributes"),
    *("diffusion_steering", "attribute_discovery", "shared_latents", "logit_lens", "readouts"),
    "pseudo_images",
)
FIGURES = (
    *("matching_rate", "reconstruction", "spliced_loss", "localization", "intervention"),
    *("sae_stability", "monosemanticity"),
    *("ood_detection", "ood_generalization", "ontology", "image_attributes"),
    *("diffusion_steering", "attribute_discovery", "shared_latents", "logit_lens"),
)


def shown_metrics(stages: Iterable[str]) -> dict[str, Shown]:
    """Return what each metric shows that a run measured; one may show nothing of its own."""
    stages = list(stages)
    metrics = metrics_with(stages)
    shown = {stage: metrics[stage].part("report", "SHOWN") for stage in stages if stage in metrics}
    return {stage: part for stage, part in shown.items() if part is not None}


def all_sections(measured: Measured, notes: Sequence[str]) -> list[Section]:
    """Return the sections of the summary in their order; empty ones are left out.

    Args:
        measured: What the run measured.
        notes: Further sentences for "How to read", such as the masks that were used.
    """
    table, settings = measured.table, measured.settings
    parts: dict[str, Callable[[], Sequence[Section]]] = {
        "naming": lambda: [naming_section(table, settings.aims)],
        "comparison": lambda: [comparison_section(table, settings)],
        "controls": lambda: [
            differences_section(measured),
            floors_section(measured, settings.top_k),
            conclusions_section(measured),
        ],
        "groups": lambda: [groups_section(measured.groups, settings.top_k, settings.least_n)],
        "check_sae": lambda: [check_section(table)],
        "readouts": lambda: [readouts_section(table, settings.top_k)],
        "check_vision_sae": lambda: [vision_sae_section(table)],
    }
    for stage, shown in shown_metrics(table.stages()).items():
        # The section on naming joins several metrics, and stands for that of the metric `naming`.
        parts.setdefault(stage, lambda shown=shown: shown.sections(measured))  # type: ignore[misc]
    sections = [
        collapse_section(collapses(table, settings.collapse)),
        *(section for part in _ordered(parts, SECTIONS) for section in part()),
        encoders_section(table, settings.top_k, settings.least_n),
        rankings_section(measured),
        tried_section(measured.suggestions),
        how_to_read(notes),
    ]
    return [s for s in sections if s.paragraphs or any(g.rows for g in s.grids)]


def all_drawings(measured: Measured) -> list[Drawing]:
    """Return the figures of metrics in their order, then those that compare encoders."""
    from vista.report.encoders_figure import encoders_figure
    from vista.report.gains_figure import gains_figure

    table, settings = measured.table, measured.settings
    drawings: dict[str, Sequence[Drawing]] = {
        stage: shown.drawings(measured) for stage, shown in shown_metrics(table.stages()).items()
    }
    return [
        *(drawing for part in _ordered(drawings, FIGURES) for drawing in part),
        Drawing(
            "gains",
            "What the SAE term adds to the matching rate, beside controls of scale",
            lambda: gains_figure(measured),
        ),
        Drawing(
            "encoders",
            "Every metric by encoder, with its control",
            lambda: encoders_figure(table, settings.top_k, settings.least_n),
        ),
    ]


def all_notes(measured: Measured) -> list[str]:
    """Return what metrics say on their masks, limits and judges, each sentence once."""
    shown = shown_metrics({place.metric for place, _ in measured.metrics})
    notes = [
        shown[place.metric].note(place, read_result(artifact))
        for place, artifact in measured.metrics
        if place.metric in shown
    ]
    return list(dict.fromkeys(note for note in notes if note is not None))


def _ordered(parts: Mapping[str, Part], order: Sequence[str]) -> list[Part]:
    names = [*(name for name in order if name in parts), *sorted(set(parts) - set(order))]
    return [parts[name] for name in names]
