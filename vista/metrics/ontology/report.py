"""What the report shows of this metric."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vista.report.ontology_figure import ontology_figure
from vista.report.ontology_section import ontology_section
from vista.report.shown import Drawing, Measured, MetricPlace, Shown


def _note(place: MetricPlace, result: Mapping[str, Any]) -> str | None:
    lacking = result["unknown"]
    return f"Ontology: WordNet lacks {', '.join(lacking)}, which are left out." if lacking else None


def _drawings(measured: Measured) -> list[Drawing]:
    return [
        Drawing(
            "ontology",
            "Share of inner synsets that some latent names, by dictionary",
            lambda: ontology_figure(measured.table),
        )
    ]


SHOWN = Shown(
    sections=lambda measured: [ontology_section(measured.table)],
    drawings=_drawings,
    note=_note,
)
