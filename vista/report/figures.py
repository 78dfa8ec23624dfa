"""Figures of the sweep: encoders side by side, language models below each other.

Every line or point is a mean over seeds, small dots are the seeds, error bars join the seeds'
bootstrap intervals over images (lowest to highest end).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from vista.metrics.figure import Figure
from vista.report import style
from vista.report.escape import mathtext
from vista.report.facets import Series, XAxis, facets, row_labels
from vista.report.notes import bar_note, span
from vista.report.table import LongTable, OverSeeds, distinct, groups, over_seeds


def matching_per_layer(table: LongTable, top_k: int) -> Any | None:
    """Matching rate per layer with and without the term, with the shuffled-image level."""
    metric = f"matching_rate@{top_k}"
    figures = [f for f in table.select(metric) if f.layer is not None]
    if not figures:
        return None
    figure = _per_layer(figures, "share of images matched", chance=True)
    for axis in figure.axes:
        axis.set_ylim(0, 1)
    style.heading(
        figure,
        f"Matching rate: a label of the {top_k} strongest latents names what is shown",
        "Dashed: the same labels judged against other images (shuffled level). " + _note(figures),
    )
    return figure


def reconstruction_per_layer(table: LongTable, metric: str) -> Any | None:
    """FVU or L0 of the visual tokens per layer; thin lines: the text after them, the control."""
    figures = table.select(metric, token_kind="image")
    if not figures:
        return None
    label, title = {
        "fvu": ("FVU", "Reconstruction: variance of visual tokens that the SAE leaves unexplained"),
        "l0": ("active latents a token", "Sparsity: active latents of a visual token"),
    }[metric]
    encoders, llms, weights = (distinct(figures, c) for c in ("encoder", "llm", "sae_weight"))
    facet = ("llm", "encoder", "layer")
    series = [
        Series(
            style.weight_name(weight),
            dict(groups([f for f in figures if f.sae_weight == weight], *facet)),
            style.series_style(weights, weight),
            dots=True,
        )
        for weight in weights
    ]
    control = dict(groups(table.select(metric, token_kind="control"), *facet))
    dotted = {"color": style.CHANCE_COLOUR, "linestyle": ":", "linewidth": 1.4}
    series.append(Series("text control", control, dotted, reference=True))
    return facets(
        series,
        row_labels(llms, label),
        {encoder: encoder for encoder in encoders},
        XAxis("layer (after block)"),
        log=True,
        title=title,
        note="Dotted: text control (the reference answer in the place of the image). "
        + _note(figures),
    )


def _per_layer(
    figures: list[Figure],
    label: str,
    *,
    chance: bool,
) -> Any:
    encoders, llms, weights = (distinct(figures, c) for c in ("encoder", "llm", "sae_weight"))
    figure, axes = style.panels(llms, encoders)
    handles: list[Any] = []
    for r, llm in enumerate(llms):
        for c, encoder in enumerate(encoders):
            axis = axes[r, c]
            here = [f for f in figures if f.llm == llm and f.encoder == encoder]
            for place, weight in enumerate(weights):
                found = [f for f in here if f.sae_weight == weight]
                shift = 0.06 * (place - (len(weights) - 1) / 2)
                handles += _line(axis, found, weights, weight, shift, chance)
            if not here:
                style.empty(axis)
            layers = distinct([f for f in figures if f.llm == llm], "layer")
            axis.set_xticks(layers if len(layers) <= 9 else layers[:: -(-len(layers) // 9)])
            axis.set_xlim(min(layers) - 0.4, max(layers) + 0.4)
            if c == 0:
                axis.set_ylabel(f"{mathtext(str(llm), 30)}\n{label}")
            if r == len(llms) - 1:
                axis.set_xlabel("layer (after block)")
    style.legend_below(figure, handles)
    return figure


def _line(
    axis: Any,
    figures: list[Figure],
    weights: list[float],
    weight: float,
    shift: float,
    chance: bool,
) -> list[Any]:
    """Draw one weight over the layers; returns its legend handles."""
    by_layer = [(layer, _at(figures, layer)) for layer in distinct(figures, "layer")]
    known = [(layer, summary) for layer, summary in by_layer if summary is not None]
    if not known:
        return []
    look = style.series_style(weights, weight)
    xs = [layer + shift for layer, _ in known]
    handles = [
        axis.errorbar(
            xs,
            [summary.mean for _, summary in known],
            yerr=_bars([summary for _, summary in known]),
            capsize=2,
            elinewidth=1,
            label=style.weight_name(weight),
            **look,
        )
    ]
    _seed_dots(axis, figures, shift, look["color"])
    levels = [(layer, s.chance) for layer, s in known if s.chance is not None]
    if chance and levels:
        handles += axis.plot(
            [layer + shift for layer, _ in levels],
            [level for _, level in levels],
            linestyle=style.dashes(weights, weight),
            linewidth=1.3,
            color=look["color"],
            label=f"shuffled, {style.weight_name(weight).partition(' (')[0]}",
        )
    return handles


_LOCALIZATION = (
    ("pointing_game", "pointing game\n(share of hits)"),
    ("auroc_mask", "AUROC\nper patch, masks"),
    ("average_precision_mask", "average precision\nper patch, masks"),
)
_LOCALIZATION_BOXES = tuple(
    (name.replace("_mask", "_box"), label.replace("masks", "boxes"))
    for name, label in _LOCALIZATION
)


def localization_per_encoder(table: LongTable) -> Any | None:
    """Pointing game, AUROC and average precision for each encoder, with their chance levels."""
    boxes_only = not [f for f in table.select("auroc_mask", layer=None) if f.value is not None]
    shown = _LOCALIZATION_BOXES if boxes_only else _LOCALIZATION
    figures = [f for name, _ in shown for f in table.select(name, layer=None)]
    if not figures:
        return None
    encoders, llms, weights = (distinct(figures, c) for c in ("encoder", "llm", "sae_weight"))
    figure, axes = style.panels([label for _, label in shown], llms, width=3.4, height=1.95)
    handles: list[Any] = []
    for r, (metric, label) in enumerate(shown):
        for c, llm in enumerate(llms):
            axis = axes[r, c]
            here = [f for f in figures if f.metric == metric and f.llm == llm]
            for place, weight in enumerate(weights):
                shift = 0.22 * (place - (len(weights) - 1) / 2)
                for e, encoder in enumerate(encoders):
                    found = [f for f in here if f.encoder == encoder and f.sae_weight == weight]
                    handles += _dot(axis, found, e + shift, weights, weight)
            if not any(f.value is not None for f in here):
                style.empty(axis)
            axis.set_xticks(range(len(encoders)), [mathtext(e, 20) for e in encoders])
            axis.set_xlim(-0.5, len(encoders) - 0.5)
            axis.set_ylim(0, 1)
            if c == 0:
                axis.set_ylabel(label)
    style.legend_below(figure, handles)
    n_pairs = [f.n for f in figures if f.metric == "pointing_game" and f.value is not None]
    style.heading(
        figure,
        "Localization: do named latents fire on their object? (all layers pooled)",
        f"Grey ticks: chance. Pointing game over {span(n_pairs)} matched latents a projector, "
        f"maps over every class present that has a latent. {bar_note(figures)}",
    )
    return figure


def _dot(
    axis: Any, figures: list[Figure], x: float, weights: list[float], weight: float
) -> list[Any]:
    summary = over_seeds(figures)
    if summary is None:
        return []
    look = style.series_style(weights, weight)
    handle = axis.errorbar(
        [x],
        [summary.mean],
        yerr=_bars([summary]),
        capsize=2.5,
        elinewidth=1.2,
        linestyle="none",
        label=style.weight_name(weight),
        **look,
    )
    values = [f.value for f in figures if f.value is not None]
    if len(values) > 1:
        axis.scatter([x + 0.06] * len(values), values, s=6, color=look["color"], alpha=0.6)
    handles = [handle]
    if summary.chance is not None:
        handles += axis.plot(
            [x - 0.09, x + 0.09],
            [summary.chance] * 2,
            color=style.CHANCE_COLOUR,
            linewidth=1.6,
            label="chance",
        )
    return handles


def _at(figures: Iterable[Figure], layer: int) -> OverSeeds | None:
    return over_seeds([figure for figure in figures if figure.layer == layer])


def _seed_dots(axis: Any, figures: list[Figure], shift: float, colour: str) -> None:
    points = [
        (figure.layer + shift, figure.value)
        for figure in figures
        if figure.layer is not None and figure.value is not None
    ]
    axis.scatter([x for x, _ in points], [y for _, y in points], s=5, color=colour, alpha=0.5)


def _bars(summaries: Sequence[OverSeeds]) -> list[list[float]]:
    below = [max(0.0, s.mean - s.low) if s.low is not None else 0.0 for s in summaries]
    above = [max(0.0, s.high - s.mean) if s.high is not None else 0.0 for s in summaries]
    return [below, above]


def _note(figures: Sequence[Figure]) -> str:
    kind = {"mse": "tokens", "fvu": "tokens", "l0": "tokens"}.get(figures[0].metric, "images")
    return f"n = {span([f.n for f in figures])} {kind}. {bar_note(figures)}"
