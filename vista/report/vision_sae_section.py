"""Section of the summary about vision SAEs: their size, and their figures on held-out images."""

from __future__ import annotations

from vista.metrics.sae_check import VISION_FIGURES
from vista.report import grid
from vista.report.grid import Grid, Section, number
from vista.report.table import LongTable, groups

_FIELDS = ("explained_variance", "fvu", "l0", "dead_share")


def vision_sae_section(table: LongTable) -> Section:
    """Return the size and the check of each encoder's vision SAEs."""
    rows = []
    for (encoder, sae), figures in groups(table.of_stage("check_vision_sae"), "encoder", "method"):
        by_name = {figure.metric: figure for figure in figures}
        check = {field: by_name[VISION_FIGURES[field]] for field in _FIELDS}
        rows.append(
            [
                *(grid.name(encoder), block(figures[0].layer), grid.name(sae)),
                *(str(check["dead_share"].n), expansion(table, encoder, sae)),
                *(number(figure.value) for figure in check.values()),
                str(check["l0"].n),
            ]
        )
    return Section(
        "The vision dictionaries on held-out images",
        "Of the features' patches (or class tokens): variance explained, active latents a patch, "
        "and the share of latents that never fire on them. Expansion: latents a channel.",
        [
            Grid(
                (
                    *("encoder", "block", "SAE", "latents", "expansion"),
                    *("explained variance", "FVU", "L0", "dead share", "n patches"),
                ),
                rows,
            )
        ],
    )


def block(layer: int | None) -> str:
    """Return the encoder's block as a cell; combined features belong to none."""
    return "–" if layer is None else str(layer)


def expansion(table: LongTable, encoder: str | None, sae: str | None) -> str:
    """Return how many latents a vision SAE has for each channel that it reads, as a cell."""
    figures = table.select("vision_sae_expansion", encoder=encoder, method=sae)
    return f"{figures[0].value:.3g}×" if figures else "–"
