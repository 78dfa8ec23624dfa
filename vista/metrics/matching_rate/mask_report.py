"""The matching rate without its masks, and along the bound of one: a table and a figure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vista.config.metrics import WITHOUT
from vista.metrics.figure import Figure
from vista.report import grid, style
from vista.report.facets import Series, XAxis, facets, row_labels
from vista.report.grid import Grid, number, spread
from vista.report.notes import bar_note, span
from vista.report.table import LongTable, distinct, groups, over_seeds

_HIDING = ("frequency", "density", None)


def masks_grid(table: LongTable, k: int) -> Grid:
    """Return the matching rate with both masks and without, each with its shuffled level, and the
    share of the activation that each mask hides, mean over layers."""
    rows = []
    for (encoder, llm, weight), figures in groups(
        table.select("matching_rate", of="unmasked", k=k, layer=None),
        "encoder",
        "llm",
        "sae_weight",
    ):
        point = {"encoder": encoder, "llm": llm, "sae_weight": weight}
        cells = [grid.name(encoder), grid.name(llm), grid.weight(weight)]
        for of in (None, *WITHOUT):
            rate = over_seeds(table.select("matching_rate", of=of, k=k, layer=None, **point))
            cells += [spread(rate), number(rate.chance if rate else None)]
        gap = over_seeds(
            table.select("matching_mask_difference", of="unmasked", k=k, layer=None, **point)
        )
        cells += [spread(gap), grid.interval(gap.low, gap.high) if gap else "–"]
        for by in _HIDING:
            shares = over_layers(table.select("masked_activation", of=by, **point))
            cells.append(number(shares))
        rows.append([*cells, str(min(figure.n for figure in figures))])
    head = (
        *("match", "shuffled", "no frequency mask", "shuffled"),
        *("no density mask", "shuffled", "unmasked", "shuffled"),
        *("unmasked - masked", "95 %"),
        *("hidden by frequency", "by density", "by either", "n"),
    )
    return Grid(("encoder", "LLM", "λ", *head), rows)


def over_layers(figures: Sequence[Figure]) -> float | None:
    """Return the mean over layers and seeds of figures by layer; None if none has a value."""
    values = [f.value for f in figures if f.layer is not None and f.value is not None]
    return sum(values) / len(values) if values else None


def mask_curve(table: LongTable, top_k: int) -> Any | None:
    """Draw the matching rate and its shuffled level against the bound of the frequency mask, by
    weight of the SAE term, a panel an encoder and LLM, averaged over layers."""
    figures = table.select("matching_by_mask", k=top_k, layer=None)
    bounds = sorted({figure.of for figure in figures if figure.of is not None}, key=float)
    weights, encoders, llms = (distinct(figures, c) for c in ("sae_weight", "encoder", "llm"))
    series = []
    for weight in weights:
        look = style.series_style(weights, weight)
        of_weight = [figure for figure in figures if figure.sae_weight == weight]
        level = {
            "color": look["color"],
            "linestyle": style.dashes(weights, weight),
            "linewidth": 1.3,
            "label": f"shuffled, λ = {weight:g}",
        }
        panels = dict(groups(of_weight, "llm", "encoder", "of"))
        series.append(Series(style.weight_name(weight), panels, look, level=level, dots=True))
    return facets(
        series,
        row_labels(llms, "share of images matched"),
        {encoder: encoder for encoder in encoders},
        XAxis(
            "latents in more of the images are masked",
            names={of: f"{100 * float(of):g} %" for of in bounds},
        ),
        from_zero=True,
        title=f"Matching rate of the {top_k} strongest latents by the bound of the frequency mask",
        note="Mean over layers; 100 %: no frequency mask. Dashed: the same labels judged against "
        f"other images (shuffled level). n = {span([f.n for f in figures])} images. "
        f"{bar_note(figures)}",
    )
