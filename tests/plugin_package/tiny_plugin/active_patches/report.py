"""Section of the report: the share by layer."""

from vista.report import grid
from vista.report.grid import Grid, Section, spread
from vista.report.shown import Measured, Shown
from vista.report.table import groups, over_seeds


def _section(measured: Measured) -> Section:
    figures = measured.table.select("active_patches")
    rows = [
        [grid.name(encoder), grid.layer(layer), spread(over_seeds(part))]
        for (encoder, layer), part in groups(figures, "encoder", "layer")
    ]
    return Section(
        "Active patches",
        "Share of the patches at which a latent fires.",
        [Grid(("encoder", "layer", "share"), rows)],
    )


SHOWN = Shown(sections=lambda measured: [_section(measured)])
