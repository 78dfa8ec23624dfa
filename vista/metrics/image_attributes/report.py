"""What the report shows of this metric."""

from __future__ import annotations

from vista.report.image_attributes_figure import image_attributes_figure
from vista.report.image_attributes_section import image_attributes_section
from vista.report.shown import Drawing, Measured, Shown


def _drawings(measured: Measured) -> list[Drawing]:
    return [
        Drawing(
            "image_attributes",
            "Attributes that latents of vision SAEs found in images, by dictionary",
            lambda: image_attributes_figure(measured.table),
        )
    ]


SHOWN = Shown(
    sections=lambda measured: [image_attributes_section(measured.table)],
    drawings=_drawings,
)
