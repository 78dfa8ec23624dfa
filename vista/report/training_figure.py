"""Figure of the training of projectors."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import pyarrow.parquet as pq

from vista.engine.artifacts import Artifact
from vista.metrics.figure import Figure
from vista.report import style
from vista.report.escape import mathtext
from vista.report.facets import Series, XAxis, facets
from vista.report.inputs import PointPlace
from vista.report.shown import Drawing

_LOSSES = {"cross_entropy": "cross-entropy", "sae_error": "SAE error"}
# Measured every few steps, where a stage of training asks for it.
_MEASURED = {
    "fvu": "FVU",
    "l0": "L0",
    "entropy_gradient": "gradient norm,\ncross-entropy",
    "term_gradient": "gradient norm,\nSAE term",
    "visual_norm": "norm of\nvisual tokens",
    "text_norm": "norm of text",
}
_MOST_POINTS = 60


@dataclass(frozen=True)
class Curve:
    """Losses of one projector's training: columns of its curve.parquet."""

    encoder: str
    llm: str
    sae_weight: float
    seed: int
    columns: Mapping[str, Sequence[float]]


def training_drawing(trained: Sequence[tuple[PointPlace, Artifact]]) -> Drawing:
    """Return the figure of all trained projectors, a place for each stage of training."""
    curves = _read_curves(trained)
    return Drawing(
        "training", "Losses while the projectors were trained", lambda: loss_curves(curves)
    )


def _read_curves(trained: Sequence[tuple[PointPlace, Artifact]]) -> list[Curve]:
    """Read the curve of each trained projector."""
    return _joined(
        Curve(
            place.encoder,
            place.llm,
            place.sae_weight,
            place.seed,
            pq.read_table(artifact.file("curve.parquet")).to_pydict(),
        )
        for place, artifact in trained
    )


def _joined(stages: Iterable[Curve]) -> list[Curve]:
    """Join the stages of training of each projector in their order; NaN where a stage lacks a
    column of another."""
    joined: dict[tuple[str, str, float, int], dict[str, list[float]]] = {}
    for stage in stages:
        point = stage.encoder, stage.llm, stage.sae_weight, stage.seed
        columns = joined.setdefault(point, {})
        before, steps = len(columns.get("step", ())), len(stage.columns["step"])
        for name in {**columns, **stage.columns}:
            shift = before if name == "step" else 0
            values = stage.columns.get(name, [math.nan] * steps)
            columns.setdefault(name, [math.nan] * before).extend(v + shift for v in values)
    return [Curve(*point, columns) for point, columns in joined.items()]


def loss_curves(curves: Sequence[Curve]) -> Any | None:
    """Draw cross-entropy and SAE error over the steps of every projector's training, and below them
    what was measured."""
    seen = {name for curve in curves for name in curve.columns}
    quantities = _LOSSES | {name: label for name, label in _MEASURED.items() if name in seen}
    llms = sorted({curve.llm for curve in curves})
    weights = sorted({curve.sae_weight for curve in curves})
    series = []
    for curve in curves:
        losses = {
            ((curve.llm, quantity), curve.encoder, step): [Figure(quantity, value=loss)]
            for quantity in quantities
            if quantity in curve.columns
            for step, loss in _smooth(curve.columns["step"], curve.columns[quantity])
        }
        look = {
            "color": style.series_style(weights, curve.sae_weight)["color"],
            "linewidth": 1.2,
            "alpha": 0.85,
        }
        series.append(Series(style.weight_name(curve.sae_weight), losses, look))
    seeds = len({curve.seed for curve in curves})
    return facets(
        series,
        {
            (llm, quantity): f"{mathtext(llm, 30)}\n{label}"
            for llm, (quantity, label) in product(llms, quantities.items())
        },
        {encoder: encoder for encoder in sorted({curve.encoder for curve in curves})},
        XAxis("step", continuous=True),
        log=True,
        size=(2.7, 1.7),
        title="Training of the projectors",
        note=f"One line a seed ({seeds}); a mean over windows of steps, on training batches. The "
        "SAE error is shown without its weight, and only where training reads the SAEs. Gradients "
        "are without it, too; norms are root mean squares. No error bars.",
    )


def _smooth(steps: Sequence[float], losses: Sequence[float]) -> list[tuple[float, float]]:
    """Return the last step and the mean of windows of equal width, of the steps that have a value;
    without any, NaN stays NaN."""
    there = [(step, loss) for step, loss in zip(steps, losses, strict=True) if loss == loss]
    if there:
        steps, losses = zip(*there, strict=True)
    width = max(1, -(-len(steps) // _MOST_POINTS))
    cuts = [slice(start, start + width) for start in range(0, len(steps), width)]
    return [(float(steps[cut][-1]), math.fsum(losses[cut]) / len(losses[cut])) for cut in cuts]
