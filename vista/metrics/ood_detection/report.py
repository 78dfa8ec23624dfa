"""What the report shows of this metric."""

from __future__ import annotations

from vista.report.ood import ood_detection_section
from vista.report.ood_figure import ood_detection_figure
from vista.report.shown import Drawing, Measured, Shown


def _drawings(measured: Measured) -> list[Drawing]:
    return [
        Drawing(
            "ood_detection",
            "AUROC of every score, by set of images",
            lambda: ood_detection_figure(measured.table),
        )
    ]


SHOWN = Shown(
    sections=lambda measured: [ood_detection_section(measured.table)],
    drawings=_drawings,
)
