"""Figure of encoders beside each other, a panel a metric."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

from vista.report import style
from vista.report.encoders_section import Compared, compared
from vista.report.escape import mathtext
from vista.report.table import LongTable

_COLUMNS = 4


def encoders_figure(table: LongTable, top_k: int = 3) -> Any | None:
    """Every metric of every encoder beside its control; None for fewer than two encoders."""
    encoders, rows = compared(table, top_k)
    metrics = list(dict.fromkeys(row.what for row in rows))
    if len(encoders) < 2 or not metrics:
        return None
    models = list(dict.fromkeys((row.llm, row.weight) for row in rows))
    pyplot = style.setup()
    height = -(-len(metrics) // _COLUMNS)
    figure, axes = pyplot.subplots(
        height, _COLUMNS, figsize=(11, 2.3 * height + 1.5), squeeze=False, layout="constrained"
    )
    handles: list[Any] = []
    for axis, what in zip(axes.flat, metrics, strict=False):
        axis.set_title(textwrap.fill(what, 34), fontsize=8)
        names = [mathtext(name, 14) for name in encoders]
        axis.set_xticks(
            range(len(encoders)), names, rotation=30, ha="right", rotation_mode="anchor", fontsize=7
        )
        axis.set_xlim(-0.6, len(encoders) - 0.4)
        for row in (row for row in rows if row.what == what):
            place = models.index((row.llm, row.weight))
            shift = 0.4 * (place / max(len(models) - 1, 1) - 0.5)
            xs = [encoders.index(name) + shift for name in row.of]
            look = _look(row, models)
            name = f"{mathtext(row.llm, 20)}, λ = {row.weight:g}" if row.llm else "of the encoder"
            values = [value for value, _ in row.of.values()]
            handles += axis.plot(xs, values, linestyle="", label=name, **look)
            levels = [(x, level) for x, (_, level) in zip(xs, row.of.values(), strict=True)]
            known = [(x, level) for x, level in levels if level is not None]
            if known:
                control = {"marker": "_", "markersize": 9, "color": look["color"], "alpha": 0.6}
                axis.plot(*zip(*known, strict=True), linestyle="", **control)
    for axis in list(axes.flat)[len(metrics) :]:
        axis.set_axis_off()
    style.legend_below(figure, handles)
    style.heading(
        figure,
        "Encoders compared",
        "Ticks: the control that each panel's title names in brackets. Means over seeds, layers, "
        "vision SAEs and sets of images; no bars: intervals stand in each metric's own figure.",
    )
    return figure


def _look(row: Compared, models: Sequence[tuple[str | None, float | None]]) -> dict[str, Any]:
    """Colours of weights as in every figure, hollow for a second language model; grey where none
    was read."""
    if row.weight is None:
        return {"color": style.CHANCE_COLOUR, "marker": "o"}
    look = style.series_style(sorted({w for _, w in models if w is not None}), row.weight)
    first = next(llm for llm, _ in models if llm is not None)
    return look if row.llm == first else {**look, "markerfacecolor": "white"}
