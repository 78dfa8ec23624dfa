"""Section and figure of localization, and the note on the limits of the pointing game."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vista.report import grid, style
from vista.report.escape import mathtext
from vista.report.facets import Series, XAxis, facets
from vista.report.grid import Grid, Name, Section, number, spread
from vista.report.notes import bar_note, span
from vista.report.shown import Drawing, Measured, MetricPlace, Shown
from vista.report.table import LongTable, OverSeeds, distinct, groups, over_seeds


def localization_section(table: LongTable, least_n: int) -> Section:
    """Return pointing game and maps, pooled over layers."""
    rows, unmasked = [], []
    for (encoder, llm, weight), figures in groups(
        table.select("pointing_game", of=None, layer=None), "encoder", "llm", "sae_weight"
    ):
        point = {"encoder": encoder, "llm": llm, "sae_weight": weight, "layer": None}
        game = over_seeds(figures)
        cells = [
            grid.name(encoder),
            grid.name(llm),
            grid.weight(weight),
            grid.few_over_seeds(game, least_n),
            *grid.interval_chance_n(game),
            grid.few_over_seeds(
                over_seeds(table.select("pointing_salient", of=None, **point)), least_n
            ),
            *_with_interval(over_seeds(table.select("pointing_salient_gain", of=None, **point))),
        ]
        aurocs = {of: over_seeds(table.select("auroc", of=of, **point)) for of in ("box", "mask")}
        cells += [grid.few_over_seeds(summary, least_n) for summary in aurocs.values()]
        for metric in ("average_precision", "iou_active", "iou_best"):
            summary = over_seeds(table.select(metric, of="mask", **point))
            cells += [
                grid.few_over_seeds(summary, least_n),
                number(summary.chance if summary else None),
            ]
        maps = aurocs["box"]
        rows.append([*cells, str(maps.n if maps else 0)])
        unmasked.append(
            [
                *cells[:3],
                *_pointing(table, point, None, least_n),
                *_pointing(table, point, "unmasked", least_n),
            ]
        )
    return Section(
        "Localization: named latents fire on their object",
        "All layers pooled; mean over seeds (smallest–largest). Pointing game: matched latents "
        "whose label is the class word, chance is the covered share of the patches; salient: the "
        "token with the largest norm of the residual stream in the place of the latent's, and the "
        "game minus that. Last table: the game with the latents that rank first under both "
        "masks, and without masks. Maps: every "
        "class present that has a latent of its own; chance of AUROC is .5. In brackets: figures "
        f"over fewer than {least_n} things, which stand in no order of encoders.",
        [
            Grid(
                (
                    *("encoder", "LLM", "λ", "pointing", "95 %", "chance", "n"),
                    *("salient", "over salient", "95 %"),
                    *("AUROC box", "AUROC mask", "AP mask", "chance"),
                    *("IoU active", "chance", "IoU best", "chance", "n maps"),
                ),
                rows,
            ),
            _encoder_order(table, least_n),
            Grid(
                (
                    *("encoder", "LLM", "λ", "pointing", "chance", "salient", "n"),
                    *("unmasked", "chance", "salient", "n"),
                ),
                unmasked,
            ),
        ],
    )


def _with_interval(summary: OverSeeds | None) -> list[str]:
    """Return two cells: a figure over seeds, and its interval."""
    if summary is None:
        return ["–", "–"]
    return [spread(summary), grid.interval(summary.low, summary.high)]


def _pointing(
    table: LongTable, point: Mapping[str, Any], of: str | None, least_n: int
) -> list[str]:
    """Return four cells: the game, its chance, that of the token with the largest norm, n."""
    game = over_seeds(table.select("pointing_game", of=of, **point))
    salient = over_seeds(table.select("pointing_salient", of=of, **point))
    return [
        grid.few_over_seeds(game, least_n),
        number(game.chance if game else None),
        grid.few_over_seeds(salient, least_n),
        str(game.n if game else 0),
    ]


def _encoder_order(table: LongTable, least_n: int) -> Grid:
    """Return the encoders in the order of their pointing game over chance; the paper has a
    self-supervised one ahead. Encoders with fewer than `least_n` pairs stand in no order."""
    rows = []
    for (llm, weight), figures in groups(
        table.select("pointing_gain", of=None, layer=None), "llm", "sae_weight"
    ):
        gains = [
            (summary.mean, encoder, summary.n)
            for (encoder,), of_encoder in groups(figures, "encoder")
            if (summary := over_seeds(of_encoder)) is not None
        ]
        order = [
            f"{encoder} {number(gain)}"
            for gain, encoder, n in sorted(gains, reverse=True)
            if n >= least_n
        ]
        left_out = [f"{encoder} (n = {n})" for _, encoder, n in gains if n < least_n]
        rows.append(
            [
                grid.name(llm),
                grid.weight(weight),
                Name(" > ".join(order) or "–"),
                Name(", ".join(left_out) or "–"),
            ]
        )
    head = ("LLM", "λ", "encoders by pointing game - chance", f"n below {least_n}: no order")
    return Grid(head, rows)


def localization_per_encoder(table: LongTable, least_n: int = 0) -> Any | None:
    """Draw pointing game, AUROC and average precision for each encoder, with chance levels.

    Maps are compared with masks, and with boxes where no object has a mask.
    """
    has_masks = any(f.value is not None for f in table.select("auroc", of="mask", layer=None))
    truth, truths = ("mask", "masks") if has_masks else ("box", "boxes")
    rows = {
        "pointing_game": "pointing game\n(share of hits)",
        "auroc": f"AUROC\nper patch, {truths}",
        "average_precision": f"average precision\nper patch, {truths}",
    }
    pointing = table.select("pointing_game", of=None, layer=None)
    figures = [
        *pointing,
        *table.select("auroc", of=truth, layer=None),
        *table.select("average_precision", of=truth, layer=None),
    ]
    encoders, llms, weights = (distinct(figures, c) for c in ("encoder", "llm", "sae_weight"))
    series = [
        Series(
            style.weight_name(weight),
            dict(
                groups((f for f in figures if f.sae_weight == weight), "metric", "llm", "encoder")
            ),
            {**style.series_style(weights, weight), "linestyle": "none"},
            level=style.CHANCE_TICKS,
            dots=True,
        )
        for weight in weights
    ]
    n_pairs = [f.n for f in pointing if f.value is not None]
    return facets(
        series,
        rows,
        {llm: llm for llm in llms},
        XAxis(names={encoder: mathtext(encoder, 20) for encoder in encoders}, spread=0.44),
        from_zero=True,
        least_n=least_n,
        size=(3.4, 1.95),
        title="Localization: do named latents fire on their object? (all layers pooled)",
        note=f"Grey ticks: chance. Grey crosses: n below {least_n}. Pointing game over "
        f"{span(n_pairs)} matched latents a projector, maps over every class "
        f"present that has a latent. {bar_note(figures)}",
    )


def _note(place: MetricPlace, result: Mapping[str, Any]) -> str:
    return (
        f"Pointing game: each box touches {result['min_patches']} to {result['max_patches']} of "
        f"{result['n_patches']} patches (published: 5 to 200 of 256); "
        f"{result['n_targets_in_limits']} of {result['n_targets']} pairs of image and class have "
        "such a box."
    )


def _drawings(measured: Measured) -> list[Drawing]:
    return [
        Drawing(
            "localization",
            "Localization per encoder, with chance levels",
            lambda: localization_per_encoder(measured.table, measured.settings.least_n),
        )
    ]


SHOWN = Shown(
    sections=lambda measured: [localization_section(measured.table, measured.settings.least_n)],
    drawings=_drawings,
    note=_note,
)
