"""What the report shows of this metric."""

from __future__ import annotations

from vista.report.figures import reconstruction_per_layer
from vista.report.metric_sections import reconstruction_section
from vista.report.shown import Drawing, Measured, Shown


def _drawings(measured: Measured) -> list[Drawing]:
    return [
        Drawing(
            "reconstruction_fvu",
            "Variance of visual tokens that the SAE leaves unexplained, per layer",
            lambda: reconstruction_per_layer(measured.table, "fvu"),
        ),
        Drawing(
            "reconstruction_l0",
            "Active latents of a visual token, per layer",
            lambda: reconstruction_per_layer(measured.table, "l0"),
        ),
    ]


SHOWN = Shown(
    sections=lambda measured: [reconstruction_section(measured.table)],
    drawings=_drawings,
)
