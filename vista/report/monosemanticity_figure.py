"""Figures that set an SAE beside other dictionaries of the same features: monosemanticity here,
ontology."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vista.metrics.figure import Figure
from vista.report import style
from vista.report.escape import mathtext
from vista.report.table import LongTable

# What a figure of a dictionary is of, after the metric's name; the SAE first, then its controls.
DICTIONARIES = {
    "sae": "SAE",
    "neurons": "neurons",
    "random": "random dictionary",
    "random_matched": "random, matched",
    "random_latents": "random latents",
}


def monosemanticity_figure(table: LongTable) -> Any | None:
    """Mean score of each vision SAE, the raw neurons and a random dictionary."""
    figure = by_dictionary(table, {"monosemanticity": "mean similarity\nof a latent's images"})
    if figure is not None:
        style.heading(
            figure,
            "Monosemanticity: are a latent's images alike to another encoder?",
            "Activation-weighted mean cosine of image pairs in the other encoder's space, centred. "
            "Matched: random latents that fire on as many images as the SAE's. Ticks: any two "
            "images. Error bars: bootstrap intervals over latents.",
        )
    return figure


def by_dictionary(table: LongTable, metrics: Mapping[str, str]) -> Any | None:
    """Draw metrics (name -> label of the axis) below each other, encoders side by side: each SAE
    with its controls, and the chance level of each as a tick."""
    found = {
        (metric, name): known
        for metric in metrics
        for name in DICTIONARIES
        if (known := [f for f in table.select(f"{metric}:{name}") if f.value is not None])
    }
    if not found:
        return None
    every = [f for known in found.values() for f in known]
    blocks = {str(f.encoder): f.layer for f in every}
    encoders = sorted(blocks)
    sizes = {(f.method, f.encoder): f.value or 0 for f in table.select("vision_sae_expansion")}
    smallest = {sae: size for (sae, _), size in sorted(sizes.items(), key=lambda item: -item[1])}
    saes = sorted({str(f.method) for f in every}, key=lambda sae: (smallest.get(sae, 0), sae))
    titles = [
        encoder if blocks[encoder] is None else f"{encoder}, block {blocks[encoder]}"
        for encoder in encoders
    ]
    figure, axes = style.panels(list(metrics), titles, width=3.2, height=1.9)
    names = [name for name in DICTIONARIES if any(of == name for _, of in found)]
    handles: list[Any] = []
    for r, (metric, label) in enumerate(metrics.items()):
        for c, encoder in enumerate(encoders):
            axis = axes[r, c]
            for place, name in enumerate(names):
                here = [f for f in found.get((metric, name), []) if f.encoder == encoder]
                shift = 0.2 * (place - (len(names) - 1) / 2)
                xs = [saes.index(str(f.method)) + shift for f in here]
                handles += _dots(axis, xs, here, name, place)
            labels = [
                mathtext(sae, 20)
                + (f"\n{size:.3g}×" if (size := sizes.get((sae, encoder))) else "")
                for sae in saes
            ]
            axis.set_xticks(range(len(saes)), labels)
            axis.set_xlim(-0.5, len(saes) - 0.5)
        axes[r, 0].set_ylabel(label)
        axes[r, 0].set_ylim(bottom=min(0, axes[r, 0].get_ylim()[0]))
    style.legend_below(figure, handles)
    return figure


def _dots(axis: Any, xs: list[float], figures: list[Figure], name: str, place: int) -> list[Any]:
    if not figures:
        return []
    look = style.grey(place) if place else style.further_style(1)
    values = [f.value or 0.0 for f in figures]
    below, above = (
        [
            0.0 if end is None else max(0.0, sign * (end - v))
            for v, end in zip(values, ends, strict=True)
        ]
        for sign, ends in ((-1, [f.ci_low for f in figures]), (1, [f.ci_high for f in figures]))
    )
    handles = [
        axis.errorbar(
            xs,
            values,
            yerr=[below, above],
            capsize=2,
            elinewidth=1,
            linestyle="none",
            label=DICTIONARIES[name],
            **look,
        )
    ]
    for x, chance in zip(xs, (f.chance for f in figures), strict=True):
        if chance is not None:
            handles += axis.plot(
                [x - 0.09, x + 0.09],
                [chance] * 2,
                color=style.CHANCE_COLOUR,
                linewidth=1.6,
                label="chance",
            )
    return handles
