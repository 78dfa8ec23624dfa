"""Figure of steering: what an edit gains against what it changes besides."""

from __future__ import annotations

from typing import Any

from vista.metrics.diffusion_steering.measure import LATENT, METHODS, PROMPT
from vista.metrics.figure import Figure
from vista.report import style
from vista.report.escape import mathtext
from vista.report.table import LongTable, OverSeeds, over_seeds


def steering_figure(table: LongTable) -> Any | None:
    """Gain against drift of each method, a panel an attribute; ablation below."""
    found = [f for f in table.of_stage("diffusion_steering") if "_gain:" in f.metric]
    if not found:
        return None
    kinds = [kind for kind in ("steering", "ablation") if any(_of(f, kind) for f in found)]
    attributes = list(dict.fromkeys(f.metric.rpartition("@")[2] for f in found))
    figure, axes = style.panels(kinds, attributes)
    handles: list[Any] = []
    for kind, line in zip(kinds, axes, strict=True):
        for attribute, axis in zip(attributes, line, strict=True):
            for m, method in enumerate(METHODS):
                where = f":{method}@{attribute}"
                gain = over_seeds(table.select(f"{kind}_gain{where}"))
                drift = over_seeds(table.select(f"{kind}_drift{where}"))
                if gain is not None and drift is not None:
                    look = _look(m, method)
                    name = method.replace("_", " ")
                    handles.append(_point(axis, drift, gain, label=name, **look))
            axis.axhline(0, color=style.CHANCE_COLOUR, linewidth=0.8)
            axis.set_xlim(-0.05, 1.05)
            axis.set_ylim(-0.25, 1.05)
        line[0].set_ylabel(f"{mathtext(kind)}\ngain of the target")
    for axis in axes[-1]:
        axis.set_xlabel("share of other attributes changed")
    style.legend_below(figure, handles)
    style.heading(
        figure,
        "Steering a text-to-image pipeline through its text encoder",
        "Steering adds a value to prompts of another one, ablation takes it from prompts that tell "
        "it; what images show is said by probes on another encoder. Bars: 95 % intervals over "
        f"prompts. n = {min(f.n for f in found)} to {max(f.n for f in found)} images a point.",
    )
    return figure


def _of(figure: Figure, kind: str) -> bool:
    return figure.metric.startswith(f"{kind}_gain:")


def _look(place: int, method: str) -> dict[str, Any]:
    if method in (LATENT, PROMPT):
        return style.further_style(1 if method == LATENT else 2)
    return style.grey(place)


def _point(axis: Any, drift: OverSeeds, gain: OverSeeds, **look: Any) -> Any:
    return axis.errorbar(
        [drift.mean],
        [gain.mean],
        xerr=_bar(drift),
        yerr=_bar(gain),
        linestyle="none",
        capsize=1.5,
        elinewidth=0.8,
        **look,
    )


def _bar(summary: OverSeeds) -> list[list[float]]:
    low = summary.mean if summary.low is None else summary.low
    high = summary.mean if summary.high is None else summary.high
    return [[max(0.0, summary.mean - low)], [max(0.0, high - summary.mean)]]
