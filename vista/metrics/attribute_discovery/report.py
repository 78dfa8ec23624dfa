"""What the report shows of this metric."""

from __future__ import annotations

from vista.report.attributes_figure import attributes_figure
from vista.report.attributes_section import attributes_section
from vista.report.shown import Drawing, Measured, Shown


def _drawings(measured: Measured) -> list[Drawing]:
    return [
        Drawing(
            "attributes",
            "Attributes that latents found: precision and recall",
            lambda: attributes_figure(measured.table),
        )
    ]


SHOWN = Shown(
    sections=lambda measured: [attributes_section(measured.table)],
    drawings=_drawings,
)
