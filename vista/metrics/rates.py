"""Intervals of rates: what share of tries are hits, where an image may have several tries.

A percentile bootstrap does not cover rates near 0 and 1: where no image has a hit, every resample
is 0, and the interval is [0, 0]. Here the limits are those of a binomial test with mid-P values
(Lancaster, Biometrika 48, 1961; Berry and Armitage, The Statistician 44, 1995), which have a width
without a hit, too. With one try an image, 95 % limits cover .91 or more at every rate, and .95 to
.96 on average; for comparison, Wilson's cover a rate of .002 in 60 images with .89.

Tries of one image depend on each other, so the binomial is of the effective number of tries: their
number over the design effect, as in surveys (Kish, Survey Sampling, 1965; Korn and Graubard, Survey
Methodology 24, 1998). Few hits do not tell how tries of an image depend on each other, and none
tell nothing. So the design effect is estimated together with one image more, half a hit and half a
miss, all of whose tries agree (a prior worth one image; Jeffreys' prior has half a hit and half a
miss, too). Without any hit, or any miss, this makes the effective number that of fully dependent
tries: the number of images, if they have equally many. With many hits it has no weight.

Suffixes: b images.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]

# Images from which on a rate has an interval. 95 % limits cover .94 or more even with fewer
# (simulated for rates of .002 to .98 and correlations within images of 0 to .8), but say little:
# without a hit in 4 images, the rate is below .53.
LEAST_IMAGES = 5
# Halvings of [0, 1]: limits to 1e-12.
_HALVINGS = 40
# Hits are sums of floats, such as shares of the layers that match.
_ROUNDING = 1e-9


def rate_interval(
    hits_b: ArrayLike, tries_b: ArrayLike, level: float
) -> tuple[float, float, float]:
    """Share of tries that are hits, with its interval.

    Args:
        hits_b: Hits of each image, 0 to its tries: a sum of outcomes in [0, 1], each 0 or 1 or
            itself a share.
        tries_b: Tries of each image (or other cluster: a prompt, a concept); images without a try
            are left out. 1 each where outcomes are independent.
        level: Coverage of the interval.

    Returns:
        (rate, low, high); all NaN without a try, no ends (NaN) below `LEAST_IMAGES` images.

    Raises:
        ValueError: Shapes differ or are not [images], a value is not finite, or an image has more
            hits than tries or fewer than none.
    """
    hits, tries = np.asarray(hits_b, dtype=np.float64), np.asarray(tries_b, dtype=np.float64)
    if hits.shape != tries.shape or hits.ndim != 1:
        raise ValueError(f"expected hits and tries of [images]: {hits.shape}, {tries.shape}")
    if not (np.isfinite(hits).all() and np.isfinite(tries).all()):
        raise ValueError("hits and tries must be finite; leave undefined images out first")
    if (hits < -_ROUNDING).any() or (hits > tries + _ROUNDING).any():
        raise ValueError("an image has more hits than tries, or fewer than none")
    hits, tries = hits[tries > 0], tries[tries > 0]
    if not len(tries):
        return math.nan, math.nan, math.nan
    rate = float(np.clip(hits.sum() / tries.sum(), 0.0, 1.0))
    if len(tries) < LEAST_IMAGES:
        return rate, math.nan, math.nan
    effective = effective_tries(hits, tries)
    low, high = mid_p_limits(rate * effective, effective, level)
    return rate, float(low), float(high)


def effective_tries(hits_b: ArrayLike, tries_b: ArrayLike) -> FloatArray:
    """Number of independent tries that tell as much about the rate as these: tries / design effect.

    The design effect is the variance of hits - rate * tries over images, by that of as many
    independent tries, both with half a hit and half a miss of an image whose tries agree.

    Args:
        hits_b: Hits, [..., images].
        tries_b: Tries, [..., images]; one or more in all.

    Returns:
        [...]; the number of tries itself where each image has one, 0 or 1.
    """
    hits, tries = np.asarray(hits_b, dtype=np.float64), np.asarray(tries_b, dtype=np.float64)
    total = tries.sum(axis=-1)
    # Tries in the image of an average try: the design effect of fully dependent tries.
    size = (tries**2).sum(axis=-1) / total
    # The rate with the added image.
    rate = (hits.sum(axis=-1) + size / 2) / (total + size)
    residual = ((hits - rate[..., None] * tries) ** 2).sum(axis=-1)
    residual = residual + size**2 * (rate**2 + (1 - rate) ** 2) / 2
    return np.asarray(total * (total + size) * rate * (1 - rate) / residual)


def mid_p_limits(hits: ArrayLike, tries: ArrayLike, level: float) -> tuple[FloatArray, FloatArray]:
    """Limits of a binomial rate, each from a one-sided test with half of the observed probability.

    The lower limit is the rate under which P(more hits) + P(as many hits) / 2 is (1 - level) / 2;
    the upper one mirrors it. Hits and tries need not be whole: the binomial's tails are incomplete
    beta functions.

    Args:
        hits: Hits, any shape; 0 to tries.
        tries: Tries, of the same shape; above 0.
        level: Coverage of the interval.

    Returns:
        Lower and upper limits; the lower is 0 without a hit, the upper 1 without a miss.
    """
    hits, tries = np.asarray(hits, dtype=np.float64), np.asarray(tries, dtype=np.float64)
    tail = (1.0 - level) / 2.0
    misses = np.maximum(tries - hits, 0.0)
    return _lower_limit(hits, misses, tail), 1.0 - _lower_limit(misses, hits, tail)


def _lower_limit(hits: FloatArray, misses: FloatArray, tail: float) -> FloatArray:
    from scipy.special import betainc

    # betainc(a, b, .) wants a, b > 0; what an end replaces is filled in after.
    some_hits, some_misses = np.maximum(hits, 1e-12), np.maximum(misses, 1e-12)
    low, high = np.zeros_like(hits), np.ones_like(hits)
    for _ in range(_HALVINGS):
        rate = (low + high) / 2
        as_many: Any = betainc(some_hits, misses + 1, rate)
        more: Any = np.where(misses > 0, betainc(hits + 1, some_misses, rate), 0.0)
        is_below = as_many + more < 2 * tail
        low, high = np.where(is_below, rate, low), np.where(is_below, high, rate)
    return np.where(hits > 0, low, 0.0)
