"""Section and figures of reconstruction and sparsity."""

from __future__ import annotations

from typing import Any

from vista.metrics.figure import TOKEN_KINDS
from vista.report import grid, style
from vista.report.facets import Series
from vista.report.grid import Grid, Section, spread
from vista.report.notes import bar_note, span
from vista.report.per_layer import by_panel, layer_facets, weight_series
from vista.report.shown import Drawing, Measured, Shown
from vista.report.table import LongTable, distinct, groups, over_seeds

_ALIVE = (
    ("variance", "image"),
    ("image_variance", "image"),
    ("variance", "control"),
    ("fired_share", "image"),
    ("fired_share", "control"),
)


def reconstruction_section(table: LongTable) -> Section:
    """Return error, FVU and L0 per layer on the three kinds of tokens, and what shows a collapse:
    the variance of visual tokens and the latents that ever fire, beside those of the text control.
    """
    rows, alive = [], []
    for (llm, layer, encoder, weight), _ in groups(
        table.select("fvu", token_kind="image"), "llm", "layer", "encoder", "sae_weight"
    ):
        point = {"encoder": encoder, "llm": llm, "sae_weight": weight, "layer": layer}
        cells = [grid.name(llm), grid.layer(layer), grid.name(encoder), grid.weight(weight)]
        for metric in ("mse", "fvu", "l0"):
            for kind in TOKEN_KINDS:
                cells.append(spread(over_seeds(table.select(metric, token_kind=kind, **point))))
        rows.append(cells)
        alive.append(
            [
                *cells[:4],
                *(
                    spread(over_seeds(table.select(metric, token_kind=kind, **point)))
                    for metric, kind in _ALIVE
                ),
            ]
        )
    return Section(
        "Reconstruction and sparsity",
        "Mean over seeds (smallest–largest): SAE error (MSE), fraction of variance unexplained "
        "(chance 1) and active latents a token, on visual tokens, the text after them, and the "
        "text control. Below, what tells a low error from a collapse: the variance of visual "
        "tokens, its part between images, and the share of latents that fire on any token, beside "
        "the text control's.",
        [
            Grid(
                (
                    *("LLM", "layer", "encoder", "λ"),
                    *(f"MSE {kind}" for kind in TOKEN_KINDS),
                    *(f"FVU {kind}" for kind in TOKEN_KINDS),
                    *(f"L0 {kind}" for kind in TOKEN_KINDS),
                ),
                rows,
            ),
            Grid(
                (
                    *("LLM", "layer", "encoder", "λ", "variance image", "between images"),
                    *("variance control", "fired share image", "fired share control"),
                ),
                alive,
            ),
        ],
    )


def reconstruction_per_layer(table: LongTable, metric: str) -> Any | None:
    """Draw FVU or L0 of the visual tokens per layer, and that of the text control, dotted."""
    figures = table.select(metric, token_kind="image")
    label, title = {
        "fvu": ("FVU", "Reconstruction: variance of visual tokens that the SAE leaves unexplained"),
        "l0": ("active latents a token", "Sparsity: active latents of a visual token"),
    }[metric]
    control = Series(
        "text control",
        by_panel(table.select(metric, token_kind="control")),
        {"color": style.CHANCE_COLOUR, "linestyle": ":", "linewidth": 1.4},
        reference=True,
    )
    return layer_facets(
        [*weight_series(figures, distinct(figures, "sae_weight"), dots=True), control],
        label,
        log=True,
        title=title,
        note="Dotted: text control (the reference answer in the place of the image). "
        f"n = {span([figure.n for figure in figures])} tokens. {bar_note(figures)}",
    )


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
