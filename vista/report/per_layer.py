"""Figures by layer: encoders side by side, language models below each other, a series a weight."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from vista.metrics.figure import Figure
from vista.report import style
from vista.report.facets import Key, Series, XAxis, facets, row_labels
from vista.report.table import distinct, groups


def of_layers(figures: Iterable[Figure]) -> list[Figure]:
    """Return the figures that belong to a layer, without those over all layers."""
    return [figure for figure in figures if figure.layer is not None]


def by_panel(figures: Iterable[Figure]) -> dict[Key, list[Figure]]:
    """Return figures by LLM, encoder and layer: row, column and x of a figure by layer."""
    return dict(groups(figures, "llm", "encoder", "layer"))


def weight_series(
    figures: Sequence[Figure],
    weights: Sequence[float],
    *,
    level: Callable[[float], Mapping[str, Any]] | None = None,
    dots: bool = False,
) -> list[Series]:
    """Return a series for each weight of the SAE term, with its colour and marker.

    Args:
        figures: Figures of all weights.
        weights: All weights of the plot.
        level: Returns how the chance levels of a weight look, beside its colour, as of
            `Series.level`; None: they are not drawn.
        dots: Whether each seed is drawn as a small dot.
    """
    series = []
    for weight in weights:
        look = style.series_style(weights, weight)
        series.append(
            Series(
                style.weight_name(weight),
                by_panel(figure for figure in figures if figure.sae_weight == weight),
                look,
                level=None if level is None else {"color": look["color"], **level(weight)},
                dots=dots,
            )
        )
    return series


def layer_facets(series: Sequence[Series], label: str, **options: Any) -> Any | None:
    """Draw series over the layers.

    Args:
        series: Figures as of `by_panel`.
        label: What all panels show.
        options: As of `vista.report.facets.facets`: `title` and `note` at least.

    Returns:
        The matplotlib figure; None if no figure has a value.
    """
    figures = [figure for one in series for panel in one.figures.values() for figure in panel]
    encoders = {encoder: encoder for encoder in distinct(figures, "encoder")}
    rows = row_labels(distinct(figures, "llm"), label)
    return facets(series, rows, encoders, XAxis("layer (after block)"), **options)
