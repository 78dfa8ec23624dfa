"""Figure of encoders beside each other, a panel a metric."""

from __future__ import annotations

import textwrap
from typing import Any

from vista.metrics.figure import Figure
from vista.report import style
from vista.report.encoders_section import compared
from vista.report.escape import mathtext
from vista.report.facets import Series, XAxis, draw_panel
from vista.report.table import LongTable

_COLUMNS = 4


def encoders_figure(table: LongTable, top_k: int = 3, least_n: int = 0) -> Any | None:
    """Every metric of every encoder beside its control; None for fewer than two encoders."""
    encoders, rows = compared(table, top_k)
    metrics = list(dict.fromkeys(row.what for row in rows))
    if len(encoders) < 2 or not metrics:
        return None
    models = list(dict.fromkeys((row.llm, row.weight) for row in rows))
    series = []
    for model in models:
        look = _look(model, models)
        figures = {
            (row.what, None, encoder): [
                Figure(row.what, value=value, chance=control, n=row.n[encoder])
            ]
            for row in rows
            if (row.llm, row.weight) == model
            for encoder, (value, control) in row.of.items()
        }
        control = {**style.CHANCE_TICKS, "color": look["color"], "alpha": 0.6, "label": None}
        series.append(Series(_name(*model), figures, {**look, "linestyle": "none"}, level=control))
    x = XAxis(names={name: mathtext(name, 14) for name in encoders}, rotation=30, spread=0.5)
    pyplot = style.setup()
    height = -(-len(metrics) // _COLUMNS)
    figure, axes = pyplot.subplots(
        height, _COLUMNS, figsize=(11, 2.3 * height + 1.5), squeeze=False, layout="constrained"
    )
    handles: list[Any] = []
    for axis, metric in zip(axes.flat, metrics, strict=False):
        axis.set_title(textwrap.fill(metric, 34), fontsize=8)
        axis.tick_params("x", labelsize=7)
        handles += draw_panel(axis, series, metric, None, x, least_n)
    for axis in list(axes.flat)[len(metrics) :]:
        axis.set_axis_off()
    style.legend_below(figure, handles)
    style.heading(
        figure,
        "Encoders compared",
        "Ticks: the control that each panel's title names in brackets. Means over seeds, layers, "
        "vision SAEs and sets of images; no bars: intervals stand in each metric's own figure. "
        f"Grey crosses: n below {least_n}.",
    )
    return figure


# LLM and weight of the SAE term; None for figures of the encoder alone.
_Model = tuple[str | None, float | None]


def _name(llm: str | None, weight: float | None) -> str:
    return f"{mathtext(llm, 20)}, λ = {weight:g}" if llm else "of the encoder"


def _look(model: _Model, models: list[_Model]) -> dict[str, Any]:
    """Return a model's colour, that of its weight as in every figure, and its marker, hollow for
    a second LLM; grey where no LLM was read."""
    llm, weight = model
    if weight is None:
        return {"color": style.CHANCE_COLOUR, "marker": "o"}
    look = style.series_style(sorted({w for _, w in models if w is not None}), weight)
    first = next(name for name, _ in models if name is not None)
    return look if llm == first else {**look, "markerfacecolor": "white"}
