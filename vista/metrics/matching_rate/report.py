"""What the report shows of this metric."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vista.report.figures import matching_per_layer
from vista.report.metric_sections import matching_section
from vista.report.shown import Drawing, Measured, MetricPlace, Shown


def _note(place: MetricPlace, result: Mapping[str, Any]) -> str:
    judged = (
        "the image itself, and for the shuffled level one other image"
        if result["evidence"] == "image"
        else f"the names of its objects ({result['n_categories']} classes; "
        f"{result['n_without_objects']} images without objects left out)"
    )
    return (
        "Matching rate: latents active in more than "
        f"{100 * result['max_image_share']:g} % of the images or on more than "
        f"{100 * result['max_label_density']:g} % of the text tokens are masked "
        f"(published: 5 % and 0.5 %); judge `{result['judge']}`, {result['n_images']} "
        f"images, labels judged against {judged}."
    )


def _drawings(measured: Measured) -> list[Drawing]:
    return [
        Drawing(
            "matching_rate",
            "Matching rate per layer, with and without the SAE term",
            lambda: matching_per_layer(measured.table, measured.settings.top_k),
        )
    ]


SHOWN = Shown(
    sections=lambda measured: [matching_section(measured.table, measured.settings)],
    drawings=_drawings,
    note=_note,
)
