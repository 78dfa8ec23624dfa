"""What the report shows of this metric."""

from __future__ import annotations

from vista.report.shared_latents_figure import shared_latents_figure
from vista.report.shared_latents_section import shared_latents_section
from vista.report.shown import Drawing, Measured, Shown


def _drawings(measured: Measured) -> list[Drawing]:
    return [
        Drawing(
            "shared_latents",
            "Concepts with a latent selective in words, in images and in both, per layer",
            lambda: shared_latents_figure(measured.table),
        )
    ]


SHOWN = Shown(
    sections=lambda measured: [shared_latents_section(measured.table)],
    drawings=_drawings,
)
