"""What the report shows of this metric."""

from __future__ import annotations

from vista.report.monosemanticity_figure import monosemanticity_figure
from vista.report.monosemanticity_section import monosemanticity_section
from vista.report.shown import Drawing, Measured, Shown


def _drawings(measured: Measured) -> list[Drawing]:
    return [
        Drawing(
            "monosemanticity",
            "Monosemanticity score by dictionary, with the level of any two images",
            lambda: monosemanticity_figure(measured.table),
        )
    ]


SHOWN = Shown(
    sections=lambda measured: [monosemanticity_section(measured.table)],
    drawings=_drawings,
    pictures=("top_images.png", "Top images of the most monosemantic latents"),
)
