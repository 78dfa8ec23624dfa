"""Section of the summary about vision SAEs: how large they are, how well they hold held-out
images."""

from __future__ import annotations

from vista.report import grid
from vista.report.grid import Grid, Section, number
from vista.report.table import LongTable, groups

_FIGURES = ("explained_variance", "fvu", "l0", "dead_share")


def vision_sae_section(table: LongTable) -> Section:
    """Size and gate of each encoder's vision SAEs."""
    rows = []
    for (encoder, sae), found in groups(table.of_stage("check_vision_sae"), "encoder", "method"):
        by_name = {f.metric.removeprefix("vision_sae_"): f for f in found}
        rows.append(
            [
                *(grid.name(encoder), block(found[0].layer), grid.name(sae)),
                *(str(by_name["dead_share"].n), expansion(table, encoder, sae)),
                *(number(by_name[name].value) for name in _FIGURES),
                str(by_name["l0"].n),
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
    """The encoder's block as a cell; combined features are of none."""
    return "–" if layer is None else str(layer)


def expansion(table: LongTable, encoder: str | None, sae: str | None) -> str:
    """How many latents a vision SAE has for each channel that it reads."""
    found = table.select("vision_sae_expansion", encoder=encoder, method=sae)
    return f"{found[0].value:.3g}×" if found else "–"
