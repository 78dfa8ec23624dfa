"""Figure of the training of projectors."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
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

_QUANTITIES = {"cross_entropy": "cross-entropy", "sae_error": "SAE error"}
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
    """Read the curve of each trained projector, its stages of training joined in their order."""
    joined: dict[tuple[str, str, float, int], dict[str, list[float]]] = {}
    for place, artifact in trained:
        point = place.encoder, place.llm, place.sae_weight, place.seed
        columns = joined.setdefault(point, {})
        steps_before = len(columns.get("step", ()))
        for name, values in pq.read_table(artifact.file("curve.parquet")).to_pydict().items():
            shift = steps_before if name == "step" else 0
            columns.setdefault(name, []).extend(value + shift for value in values)
    return [Curve(*point, columns) for point, columns in joined.items()]


def loss_curves(curves: Sequence[Curve]) -> Any | None:
    """Draw cross-entropy and SAE error over the steps of every projector's training."""
    llms = sorted({curve.llm for curve in curves})
    weights = sorted({curve.sae_weight for curve in curves})
    series = []
    for curve in curves:
        losses = {
            ((curve.llm, quantity), curve.encoder, step): [Figure(quantity, value=loss)]
            for quantity in _QUANTITIES
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
            for llm, (quantity, label) in product(llms, _QUANTITIES.items())
        },
        {encoder: encoder for encoder in sorted({curve.encoder for curve in curves})},
        XAxis("step", continuous=True),
        log=True,
        size=(2.7, 1.7),
        title="Training of the projectors",
        note=f"One line a seed ({seeds}); a mean over windows of steps, on training batches. The "
        "SAE error is shown without its weight, and only where training reads the SAEs. No error "
        "bars.",
    )


def _smooth(steps: Sequence[float], losses: Sequence[float]) -> list[tuple[float, float]]:
    """Return the last step and the mean of windows of equal width; NaN stays NaN."""
    width = max(1, -(-len(steps) // _MOST_POINTS))
    cuts = [slice(start, start + width) for start in range(0, len(steps), width)]
    return [(float(steps[cut][-1]), math.fsum(losses[cut]) / len(losses[cut])) for cut in cuts]
