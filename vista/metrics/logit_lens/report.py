"""What the report shows of this metric."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vista.report.logit_lens_figure import logit_lens_figure
from vista.report.logit_lens_section import logit_lens_section
from vista.report.shown import Drawing, Measured, MetricPlace, Shown


def _note(place: MetricPlace, result: Mapping[str, Any]) -> str:
    return (
        f"Logit lens: {result['n_one_token']} of {result['n_categories']} object names are "
        f"one token of {place.llm}; of the others no single word can be read."
    )


def _drawings(measured: Measured) -> list[Drawing]:
    return [
        Drawing(
            "logit_lens",
            "Nouns among the words that the model's head reads at their patches, per layer",
            lambda: logit_lens_figure(measured.table, measured.settings.top_k),
        )
    ]


SHOWN = Shown(
    sections=lambda measured: [logit_lens_section(measured.table, measured.settings.top_k)],
    drawings=_drawings,
    note=_note,
)
