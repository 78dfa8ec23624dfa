"""What the report shows of this metric."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vista.report.figures import localization_per_encoder
from vista.report.metric_sections import localization_section
from vista.report.shown import Drawing, Measured, MetricPlace, Shown


def _note(place: MetricPlace, result: Mapping[str, Any]) -> str:
    return (
        f"Pointing game: boxes of a class touch {result['min_patches']} to "
        f"{result['max_patches']} of {result['n_patches']} patches (published: 5 to 200 of "
        f"256), {result['n_targets_in_limits']} of {result['n_targets']} class instances."
    )


def _drawings(measured: Measured) -> list[Drawing]:
    return [
        Drawing(
            "localization",
            "Localization per encoder, with chance levels",
            lambda: localization_per_encoder(measured.table),
        )
    ]


SHOWN = Shown(
    sections=lambda measured: [localization_section(measured.table)],
    drawings=_drawings,
    note=_note,
)
