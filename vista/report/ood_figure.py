"""Figures of both experiments out of distribution: rows are encoders, columns sets of images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from vista.metrics.figure import Figure
from vista.metrics.ood_detection.scores import SAE_SCORES, SCORES
from vista.report import style
from vista.report.escape import mathtext
from vista.report.ood import (
    DETECTION,
    GENERALIZATION,
    OWN,
    detection_sets,
    generalization_sets,
    size_of,
    split_metric,
)
from vista.report.table import LongTable

_ALL = "all"


def ood_detection_figure(table: LongTable) -> Any | None:
    """AUROC of every score: those of each SAE in colour, on raw features and at random in grey."""
    figures = [f for f in table.of_stage(DETECTION) if f.metric.startswith("ood_auroc:")]
    if not figures:
        return None

    def draw(axis: Any, here: Sequence[Figure], saes: Sequence[str]) -> list[Any]:
        handles = []
        for place, (sae, look) in enumerate(_looks(saes)):
            shift = 0.5 * (place + 0.5) / len(saes) - 0.25
            found = [f for f in here if f.method == sae and _of(f) in SAE_SCORES]
            handles.append(_points(axis, found, shift, f"SAE {mathtext(sae, 24)}", look))
        plain = [f for f in here if f.method == saes[0] and _of(f) not in SAE_SCORES]
        handles.append(_points(axis, plain, 0, "no SAE", style.grey(0)))
        handles.append(axis.axhline(0.5, color=style.CHANCE_COLOUR, linestyle=":", label="chance"))
        names = [score.replace("_", " ") for score in SCORES]
        axis.set_xticks(range(len(SCORES)), names, rotation=50, ha="right", rotation_mode="anchor")
        axis.set_ylim(0, 1.02)
        return handles

    return _panels(
        figures,
        detection_sets(figures),
        "AUROC",
        draw,
        "Out of distribution: images of other sets told from held-out ones",
        f"n = {_span(figures)} images of both; error bars: bootstrap intervals over images. The "
        "random dictionary has the size and sparsity of the first SAE.",
    )


def ood_generalization_figure(table: LongTable) -> Any | None:
    """Accuracy of probes over the numbers that they read, on the run's own and shifted images."""
    figures = [f for f in table.of_stage(GENERALIZATION) if f.metric.startswith("probe_accuracy:")]
    if not figures:
        return None
    ks = sorted({k for f in figures if (k := size_of(_of(f))[1]) is not None})
    places: list[int | None] = [*ks, None]

    def draw(axis: Any, here: Sequence[Figure], saes: Sequence[str]) -> list[Any]:
        lines = [
            ("latents", sae, f"latents, SAE {mathtext(sae, 24)}", look)
            for sae, look in _looks(saes)
        ]
        plain = (("raw", "raw features"), ("pca", "PCA"), ("random", "random dictionary"))
        lines += [(of, saes[0], name, style.grey(i)) for i, (of, name) in enumerate(plain)]
        handles = []
        for i, (space, sae, name, look) in enumerate(lines):
            found = {
                size_of(_of(f))[1]: f
                for f in here
                if f.method == sae and size_of(_of(f))[0] == space and f.value is not None
            }
            shift = 0.05 * (i - len(lines) / 2)
            at = [(x + shift, found[k]) for x, k in enumerate(places) if k in found]
            if at:
                handles.append(_bars(axis, at, name, {**look, "linestyle": "-"}))
        level = next((f.chance for f in here if f.chance is not None), None)
        if level is not None:
            line = axis.axhline(level, color=style.CHANCE_COLOUR, linestyle=":", label="chance")
            handles.append(line)
        axis.set_xticks(range(len(places)), [_ALL if k is None else str(k) for k in places])
        axis.set_xlabel("numbers that the probe reads")
        axis.set_ylim(0, 1.02)
        return handles

    return _panels(
        figures,
        generalization_sets(figures),
        "accuracy",
        draw,
        "Out of distribution: accuracy of linear probes under shift",
        f"n = {_span(figures)} images of one class; error bars: bootstrap intervals over "
        "images. The random dictionary has the size and sparsity of the first SAE.",
    )


def _panels(
    figures: Sequence[Figure],
    sets: Sequence[str],
    label: str,
    draw: Callable[[Any, Sequence[Figure], Sequence[str]], list[Any]],
    title: str,
    note: str,
) -> Any:
    encoders = sorted({str(f.encoder) for f in figures})
    titles = ["held out" if name == OWN else name.replace(":", ": ", 1) for name in sets]
    figure, axes = style.panels(encoders, titles, width=2.9, height=2.6)
    handles: list[Any] = []
    for r, encoder in enumerate(encoders):
        for c, name in enumerate(sets):
            here = [f for f in figures if (f.encoder, split_metric(f.metric)[2]) == (encoder, name)]
            if here:
                handles += draw(axes[r, c], here, sorted({str(f.method) for f in here}))
            else:
                style.empty(axes[r, c])
            if r + 1 < len(encoders):
                axes[r, c].tick_params(labelbottom=False)
                axes[r, c].set_xlabel("")
        axes[r, 0].set_ylabel(f"{mathtext(encoder, 30)}\n{label}")
    style.legend_below(figure, handles, columns=4)
    style.heading(figure, title, note)
    return figure


def _span(figures: Sequence[Figure]) -> str:
    low, high = min(f.n for f in figures), max(f.n for f in figures)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _of(figure: Figure) -> str:
    return split_metric(figure.metric)[1]


def _looks(saes: Sequence[str]) -> list[tuple[str, dict[str, Any]]]:
    return [(sae, style.further_style(place)) for place, sae in enumerate(saes)]


def _points(
    axis: Any, figures: Sequence[Figure], shift: float, label: str, look: dict[str, Any]
) -> Any:
    at = [(SCORES.index(_of(f)) + shift, f) for f in figures if f.value is not None]
    return _bars(axis, at, label, {**look, "linestyle": "none"})


def _bars(axis: Any, at: Sequence[tuple[float, Figure]], label: str, look: dict[str, Any]) -> Any:
    x, y, low, high = (
        np.array(each, dtype=float)
        for each in zip(*((x, f.value, f.ci_low, f.ci_high) for x, f in at), strict=True)
    )
    # A percentile interval need not hold the value.
    ends = np.maximum(0, [y - low, high - y])
    return axis.errorbar(x, y, yerr=ends, capsize=2, elinewidth=1, label=label, **look)
