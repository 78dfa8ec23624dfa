"""What the report shows of this metric."""

from __future__ import annotations

from vista.report.ood import ood_generalization_section
from vista.report.ood_figure import ood_generalization_figure
from vista.report.shown import Drawing, Measured, Shown


def _drawings(measured: Measured) -> list[Drawing]:
    return [
        Drawing(
            "ood_generalization",
            "Accuracy of linear probes over the numbers they read, held out and shifted",
            lambda: ood_generalization_figure(measured.table),
        )
    ]


SHOWN = Shown(
    sections=lambda measured: [ood_generalization_section(measured.table)],
    drawings=_drawings,
)
