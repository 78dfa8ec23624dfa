"""Figures over layers of readouts with a control each: shared latents here, the logit lens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from vista.metrics.figure import Figure
from vista.report import style
from vista.report.escape import mathtext
from vista.report.table import LongTable, groups, over_seeds


@dataclass(frozen=True)
class Series:
    """One line of every panel: a name in the legend, the figures it is of, how it looks.

    Attributes:
        control: name of the chance level's line, drawn thinner and dashed; None: not drawn.
    """

    name: str
    figures: Sequence[Figure]
    look: dict[str, Any]
    control: str | None = None


def shared_latents_figure(table: LongTable) -> Any | None:
    """Share of concepts with a latent selective in words and in images, by layer."""
    found = [f for f in table.select("shared_concepts") if f.layer is not None]
    weights = sorted({f.sae_weight for f in found if f.sae_weight is not None})
    lines = [
        Series(
            style.weight_name(weight),
            [f for f in found if f.sae_weight == weight],
            style.series_style(weights, weight),
            control=f"permuted, {style.weight_name(weight).partition(' (')[0]}",
        )
        for weight in weights
    ]
    figure = over_layers(lines, "share of concepts")
    if figure is not None:
        style.heading(
            figure,
            "Shared latents: one latent tells a concept's word and its patches",
            f"{_n(found)} concepts. Dashed: the word of one concept with the patches of another "
            "(all pairs). Error bars: intervals over concepts.",
        )
    return figure


def over_layers(lines: Sequence[Series], label: str) -> Any | None:
    """Draw lines over the layers: encoders side by side, language models below each other."""
    every = [f for line in lines for f in line.figures if f.value is not None]
    if not every:
        return None
    encoders = sorted({str(f.encoder) for f in every})
    llms = sorted({str(f.llm) for f in every})
    figure, axes = style.panels(llms, encoders)
    handles: list[Any] = []
    for r, llm in enumerate(llms):
        layers = sorted({f.layer for f in every if f.llm == llm and f.layer is not None})
        for c, encoder in enumerate(encoders):
            axis = axes[r, c]
            for place, line in enumerate(lines):
                here = [f for f in line.figures if (f.llm, f.encoder) == (llm, encoder)]
                shift = 0.08 * (place - (len(lines) - 1) / 2)
                handles += _draw(axis, line, here, shift)
            if not any((f.llm, f.encoder) == (llm, encoder) for f in every):
                style.empty(axis)
            axis.set_xticks(layers if len(layers) <= 9 else layers[:: -(-len(layers) // 9)])
            axis.set_xlim(min(layers) - 0.4, max(layers) + 0.4)
            if c == 0:
                axis.set_ylabel(f"{mathtext(llm, 30)}\n{label}")
            if r == len(llms) - 1:
                axis.set_xlabel("layer (after block)")
    style.legend_below(figure, handles, columns=2 if len(lines) > 2 else None)
    return figure


def _draw(axis: Any, line: Series, figures: Sequence[Figure], shift: float) -> list[Any]:
    known = [
        (layer + shift, summary)
        for (layer,), found in groups(figures, "layer")
        if (summary := over_seeds(found)) is not None
    ]
    if not known:
        return []
    xs, means = [x for x, _ in known], [s.mean for _, s in known]
    below = [max(0.0, s.mean - s.low) if s.low is not None else 0.0 for _, s in known]
    above = [max(0.0, s.high - s.mean) if s.high is not None else 0.0 for _, s in known]
    handles = [
        axis.errorbar(
            xs, means, yerr=[below, above], capsize=2, elinewidth=1, label=line.name, **line.look
        )
    ]
    levels = [(x, s.chance) for x, s in known if s.chance is not None]
    if line.control is not None and levels:
        handles += axis.plot(
            [x for x, _ in levels],
            [level for _, level in levels],
            linestyle="--",
            linewidth=1.2,
            color=line.look["color"],
            label=line.control,
        )
    return handles


def _n(figures: Sequence[Figure]) -> str:
    low, high = min(f.n for f in figures), max(f.n for f in figures)
    return f"{low}" if low == high else f"{low} to {high}"
