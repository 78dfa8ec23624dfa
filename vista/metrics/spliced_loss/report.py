"""Section and figure of the loss that the SAE's reconstruction recovers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vista.report import grid, style
from vista.report.facets import Series
from vista.report.grid import Grid, Section, interval, number, spread
from vista.report.notes import bar_note, span
from vista.report.per_layer import by_panel, layer_facets, of_layers, weight_series
from vista.report.shown import Drawing, Measured, MetricPlace, Shown
from vista.report.table import LongTable, distinct, groups, over_seeds

_METRIC = "spliced_loss_recovered"


def spliced_loss_section(table: LongTable) -> Section:
    """Return the share recovered per layer, of both ablations and on the text control, beside the
    cross-entropies of the visual tokens behind it."""
    rows = []
    for (llm, layer, encoder, weight), figures in groups(
        table.select(_METRIC, of="mean", token_kind="image"),
        *("llm", "layer", "encoder", "sae_weight"),
    ):
        point = {"encoder": encoder, "llm": llm, "sae_weight": weight}
        recovered = over_seeds(figures)
        cells = [grid.name(llm), grid.layer(layer), grid.name(encoder), grid.weight(weight)]
        cells += [
            spread(recovered),
            interval(recovered.low, recovered.high) if recovered else "–",
        ]
        for of, kind in (("mean", "control"), ("zero", "image"), ("zero", "control")):
            share = table.select(_METRIC, of=of, token_kind=kind, layer=layer, **point)
            cells.append(spread(over_seeds(share)))
        for of in ("clean", "spliced", "mean", "zero"):
            # Of clean tokens there is one figure for all layers.
            at = None if of == "clean" else layer
            entropy = table.select(
                "spliced_cross_entropy", of=of, token_kind="image", layer=at, **point
            )
            summary = over_seeds(entropy)
            cells.append(number(summary.mean if summary else None))
        rows.append([*cells, str(min(figure.n for figure in figures))])
    return Section(
        "Loss recovered with the SAE's reconstruction spliced in",
        "The stream at the visual tokens after a block is replaced by its SAE reconstruction. The "
        "share of an ablation's cost that this recovers, (ablated - spliced) / (ablated - clean): "
        "1 as good as the stream, 0 as bad as the ablation, whose stream is the mean over the "
        "visual tokens of other images, or zero. Control: the reference answer as text in the "
        "place of the image, replaced and scored itself. Then the cross-entropies of the reference "
        "answer behind the visual tokens, in nats a token. Mean over seeds (smallest–largest); – "
        "where an ablation costs too little to divide by; all: mean over the layers.",
        [
            Grid(
                (
                    *("LLM", "layer", "encoder", "λ", "recovered (mean)", "95 %", "control"),
                    *("recovered (zero)", "control", "CE clean", "spliced", "mean ablated"),
                    *("zero ablated", "n"),
                ),
                rows,
            )
        ],
    )


def spliced_loss_figure(table: LongTable) -> Any | None:
    """Draw the share recovered against mean ablation per layer, and that of the text control,
    dotted."""
    shares = of_layers(table.select(_METRIC, of="mean"))
    figures = [figure for figure in shares if figure.token_kind == "image"]
    control = Series(
        "text control",
        by_panel(figure for figure in shares if figure.token_kind == "control"),
        {"color": style.CHANCE_COLOUR, "linestyle": ":", "linewidth": 1.4},
        reference=True,
    )
    return layer_facets(
        [*weight_series(figures, distinct(figures, "sae_weight"), dots=True), control],
        "loss recovered",
        title="Share of the loss that the SAE's reconstruction of visual tokens recovers",
        note="Between mean ablation (0) and the unchanged stream (1). Dotted: text control (the "
        f"reference answer in the place of the image). n = {span([f.n for f in figures])} images. "
        f"{bar_note(figures)}",
    )


def _note(place: MetricPlace, result: Mapping[str, Any]) -> str:
    return (
        "Loss recovered: mean ablation puts the mean stream over the tokens of "
        f"{result['n_mean_images']} images of split {result['mean_split']} at every replaced "
        f"token; an ablation that costs less than {result['min_ablation_cost']:g} nats a token "
        "gives no share."
    )


def _drawings(measured: Measured) -> list[Drawing]:
    return [
        Drawing(
            "spliced_loss",
            "Share of the loss that the SAE's reconstruction of visual tokens recovers, per layer",
            lambda: spliced_loss_figure(measured.table),
        )
    ]


SHOWN = Shown(
    sections=lambda measured: [spliced_loss_section(measured.table)],
    drawings=_drawings,
    note=_note,
)
