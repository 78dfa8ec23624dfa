"""Figure of attribute discovery: how much of the world proposals find, beside random latents."""

from __future__ import annotations

from typing import Any

from vista.report import style
from vista.report.escape import mathtext
from vista.report.table import LongTable, over_seeds

_NAMES = {
    "discovery_precision": "true name",
    "discovery_verified": "separates held-out prompts",
    "discovery_precision:verified": "of these: true name",
    "discovery_correct": "both",
    "discovery_changing": "changes images",
    "discovery_precision:changing": "of these: true name",
    "discovery_steered": "brings its value about",
}


def attributes_figure(table: LongTable) -> Any | None:
    """A bar for each share of the proposals and for each attribute's recall; crosses are chance."""
    found = table.of_stage("attribute_discovery")
    if not found:
        return None
    bars = []
    for metric in dict.fromkeys((*_NAMES, *(f.metric for f in found))):
        summary = over_seeds([f for f in found if f.metric == metric])
        if summary is not None:
            name = _NAMES.get(metric, f"found: {metric.rpartition('@')[2]}")
            bars.append((f"{name} (n = {summary.n})", summary))
    bars.reverse()  # the first on top
    figure, axes = style.panels(
        [""], ["proposed latents of the text encoder"], height=1.2 + 0.17 * len(bars)
    )
    axis = axes[0, 0]
    for y, (_, summary) in enumerate(bars):
        low = summary.mean if summary.low is None else summary.low
        high = summary.mean if summary.high is None else summary.high
        error = [[max(0.0, summary.mean - low)], [max(0.0, high - summary.mean)]]
        look = style.further_style(1)
        axis.barh(y, summary.mean, xerr=error, color=look["color"], height=0.6, alpha=0.8)
        if summary.chance is not None:
            axis.plot(summary.chance, y, "x", color=style.TEXT_COLOUR, label="random latents")
    axis.set_yticks(range(len(bars)), [mathtext(name) for name, _ in bars])
    axis.set_xlim(0, 1.02)
    axis.set_xlabel("share")
    axis.grid(axis="y", visible=False)
    handles, _ = axis.get_legend_handles_labels()
    style.legend_below(figure, handles)
    style.heading(
        figure,
        "Attributes found in the text encoder",
        "Proposals, their order and names come from prompts alone; the world's attributes judge. "
        "Bars: 95 % intervals over proposals (found: over values). Crosses: as many random "
        "latents; for bringing a value about a random direction.",
    )
    return figure
