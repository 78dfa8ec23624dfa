"""Figures of scored items with their intervals over images, whose items are drawn together."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from vista.metrics.bootstrap import bootstrap_ratio
from vista.metrics.intervention.captions import Scored
from vista.metrics.rates import rate_interval
from vista.metrics.result import Estimate, estimate

# Seed, number of resamples and level of a bootstrap.
Draws = tuple[int, int, float]
Value = Callable[[Scored], float]


def share(
    items: Sequence[Scored],
    hits: Value,
    tries: Value | None = None,
    *,
    level: float,
    chance: float | None = None,
) -> Estimate:
    """Share of the tries (1 an item if None) that are hits; n counts tries."""
    hits_b, tries_b = _by_image(items, hits, tries).T
    n = int(tries_b.sum())
    return estimate(rate_interval(hits_b, tries_b, level), n, chance if n else None)


def mean_score_estimate(
    items: Sequence[Scored], level: float, chance: float | None = None
) -> Estimate:
    """MS: twice the share of the points that are reached, of two points an item."""
    hits_b, tries_b = _by_image(items, lambda item: item.score / 2, None).T
    value, low, high = rate_interval(hits_b, tries_b, level)
    return estimate((2 * value, 2 * low, 2 * high), len(items), chance)


def ratio(
    items: Sequence[Scored],
    value: Value,
    weight: Value | None,
    draws: Draws,
    chance: float | None = None,
) -> Estimate:
    """Sum of `value` over the sum of `weight` (1 an item if None), no rate; n is the latter."""
    value_b, weight_b = _by_image(items, value, weight).T
    n = int(weight_b.sum())
    return estimate(bootstrap_ratio(value_b, weight_b, *draws), n, chance if n else None)


def _by_image(items: Sequence[Scored], value: Value, weight: Value | None) -> NDArray[np.float64]:
    """Sums of `value` and of `weight` (1 an item if None) of each image that has weight, [b, 2]."""
    image = {image_id: b for b, image_id in enumerate(sorted({item.image_id for item in items}))}
    sums = np.zeros((len(image), 2))
    for item in items:
        sums[image[item.image_id]] += (value(item), 1.0 if weight is None else weight(item))
    return sums[sums[:, 1] > 0]
