"""What the report shows of this metric."""

from __future__ import annotations

from vista.report.shown import Drawing, Measured, Shown
from vista.report.steering_figure import steering_figure
from vista.report.steering_section import steering_section


def _drawings(measured: Measured) -> list[Drawing]:
    return [
        Drawing(
            "steering",
            "Gain of the target and drift of other attributes, by method",
            lambda: steering_figure(measured.table),
        )
    ]


SHOWN = Shown(
    sections=lambda measured: [steering_section(measured.table)],
    drawings=_drawings,
    pictures=("grids/*.png", "Images of one noise, steered to a value by coefficient"),
)
