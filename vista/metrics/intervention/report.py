"""What the report shows of this metric."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vista.metrics.intervention.items import chosen_scores
from vista.metrics.intervention.measure import InterventionResult
from vista.metrics.results import read_result
from vista.report.interventions import Intervention
from vista.report.interventions_figure import coefficient_response
from vista.report.interventions_section import intervention_section
from vista.report.shown import Drawing, Measured, MetricPlace, Shown


def interventions(measured: Measured) -> list[Intervention]:
    """Return every removal and replacement of the run and their controls, with the score of each
    item."""
    return [
        Intervention(
            **place.model_dump(exclude={"metric", "control"}),
            result=InterventionResult.model_validate(read_result(artifact)),
            scores=chosen_scores(artifact),
            best_scores=chosen_scores(artifact, "best"),
        )
        for place, artifact in measured.of("intervention")
    ]


def _note(place: MetricPlace, result: Mapping[str, Any]) -> str | None:
    if result["control"] is not None:
        return None
    return (
        f"Interventions ({result['task']}): judge `{result['judge']}`, coefficients chosen "
        f"on {result['n_development']} development items, {result['n_items']} test items "
        f"of {result['n_images']} images; {result['n_attributes']} attribute words count "
        "as details beside object names."
    )


def _drawings(measured: Measured) -> list[Drawing]:
    return [
        Drawing(
            "interventions",
            "Removal and replacement score by coefficient, a line a method",
            lambda: coefficient_response(
                [one for one in interventions(measured) if one.control is None]
            ),
        )
    ]


SHOWN = Shown(
    sections=lambda measured: [
        intervention_section(measured.table, interventions(measured), measured.settings.aims)
    ],
    drawings=_drawings,
    note=_note,
)
