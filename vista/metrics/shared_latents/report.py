"""Section and figure of latents that words and images share."""

from __future__ import annotations

from typing import Any

from vista.report import grid, style
from vista.report.grid import Grid, Section, number, spread
from vista.report.notes import span
from vista.report.per_layer import layer_facets, of_layers, weight_series
from vista.report.shown import Drawing, Measured, Shown
from vista.report.table import LongTable, distinct, groups, over_seeds


def shared_latents_section(table: LongTable) -> Section:
    """Return the share of concepts with a latent selective in both, per layer and of any layer."""
    rows = []
    for (llm, layer, encoder, weight), figures in groups(
        table.select("shared_concepts"), "llm", "layer", "encoder", "sae_weight"
    ):
        point = {"encoder": encoder, "llm": llm, "sae_weight": weight, "layer": layer}
        shared = over_seeds(figures)
        transfer = over_seeds(table.select("transfer_auroc", **point))
        cells = [grid.name(llm), grid.layer(layer), grid.name(encoder), grid.weight(weight)]
        cells += [spread(shared), *grid.interval_chance_n(shared)]
        for kind in ("control", "image"):
            kinds = over_seeds(table.select("selective_concepts", token_kind=kind, **point))
            cells += [spread(kinds), number(kinds.chance if kinds else None)]
        rows.append([*cells, spread(transfer), *grid.interval_chance_n(transfer)[:2]])
    return Section(
        "Shared latents: the same latent in words and in images",
        "Share of concepts with a text latent whose AUROC tells the concept's word from all other "
        "words and its patches from all other patches; chance: the word of one concept with the "
        "patches of another, all pairs. Then the shares with one on words and with one on images "
        "(chance: it is selective for another concept there, too), and the AUROC on patches of "
        "each concept's best latent on words (chance: on the patches of other "
        "concepts). Layer all: a latent of any layer. Mean over seeds (smallest–largest).",
        [
            Grid(
                (
                    *("LLM", "layer", "encoder", "λ", "shared", "95 %", "chance", "n"),
                    *("on words", "chance", "on images", "chance"),
                    *("AUROC on patches", "95 %", "chance"),
                ),
                rows,
            )
        ],
    )


def shared_latents_figure(table: LongTable) -> Any | None:
    """Draw the share of concepts with a latent selective in words and in images, by layer."""
    figures = of_layers(table.select("shared_concepts"))
    weights = distinct(figures, "sae_weight")
    series = weight_series(
        figures,
        weights,
        level=lambda weight: {
            "linestyle": style.dashes(weights, weight),
            "linewidth": 1.2,
            "label": f"permuted, λ = {weight:g}",
        },
    )
    return layer_facets(
        series,
        "share of concepts",
        legend_columns=2 if len(series) > 2 else None,
        title="Shared latents: one latent tells a concept's word and its patches",
        note=f"{span([figure.n for figure in figures])} concepts. Dashed: the word of one concept "
        "with the patches of another (all pairs). Error bars: intervals over concepts.",
    )


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
