"""Bootstrap intervals over images: resample images, never tokens or pairs of one image.

For means, ratios of sums and paired differences; rates, whose ends it does not cover, have the
interval of `vista.metrics.rates`. Tokens of one image depend on each other, so every figure is
first summed within its image; the sums of whole images are then drawn with replacement. Intervals
are percentile intervals (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13).

There is no interval where it would not cover: below `LEAST_IMAGES` images, and below
`LEAST_CONSTANT` where all resamples are equal.

Suffixes: b images, c columns, r resamples.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]

DEFAULT_RESAMPLES = 1000
DEFAULT_LEVEL = 0.95
# Images from which on there is an interval: the fewest with which 95 % intervals of the mean of
# normal values cover .9 (exactly P(|t| < 1.96 sqrt((n - 1) / n)) with n - 1 degrees of freedom:
# .84 with 5 images, .90 with 10, .93 with 20; simulated for exponential values: .77, .87, .90).
LEAST_IMAGES = 10
# Images from which on a figure that all resamples share has an interval of width zero. Of n images
# that agree, up to a share of about 3 / n may differ in the population (the rule of three).
LEAST_CONSTANT = 30
# Resamples that differ by less differ by rounding.
_ROUNDING = 1e-14
# Images times resamples whose counts are multiplied at once (32 MB), and kept for the next figure
# over the same images (a byte each; three such sets of draws at most).
_BLOCK_CELLS = 4_000_000
_KEPT_CELLS = 100_000_000


def resample_means(columns_bc: ArrayLike, seed: int, n_boot: int = DEFAULT_RESAMPLES) -> FloatArray:
    """Means of each column over images drawn with replacement, all columns by the same draw.

    Args:
        columns_bc: Values, [images, columns]; at least one image.
        seed: Seed of the draws: the same seed and number of images give the same draws, so two
            figures over the same images are paired.
        n_boot: Number of resamples.

    Returns:
        [n_boot, columns].

    Raises:
        ValueError: No image, not two dimensions, or a value that is not finite.
    """
    columns = np.asarray(columns_bc, dtype=np.float64)
    if columns.ndim != 2 or not len(columns):
        raise ValueError(f"expected [images, columns] with one image or more, got {columns.shape}")
    if not np.isfinite(columns).all():
        raise ValueError("values to resample must be finite; leave undefined images out first")
    n = len(columns)
    kept = n * n_boot <= _KEPT_CELLS
    blocks = (_kept_counts if kept else _count_blocks)(n, seed, n_boot)
    return np.concatenate([counts_rb.astype(np.float64) @ columns / n for counts_rb in blocks])


def _count_blocks(n: int, seed: int, n_boot: int) -> Iterator[NDArray[np.unsignedinteger[Any]]]:
    """Yield how often each image is drawn in each resample, some resamples at a time."""
    rng = np.random.default_rng(seed)
    block = max(1, _BLOCK_CELLS // n)
    for start in range(0, n_boot, block):
        size = min(block, n_boot - start)
        drawn = rng.integers(n, size=(size, n)) + n * np.arange(size)[:, None]
        counts_rb = np.bincount(drawn.reshape(-1), minlength=size * n).reshape(size, n)
        # An image is hardly drawn more than ten times.
        yield counts_rb.astype(np.min_scalar_type(counts_rb.max()))


@lru_cache(maxsize=3)
def _kept_counts(n: int, seed: int, n_boot: int) -> tuple[NDArray[np.unsignedinteger[Any]], ...]:
    # A metric asks for dozens of intervals over the same images: the draws are made once.
    return tuple(_count_blocks(n, seed, n_boot))


def bootstrap(
    columns_bc: ArrayLike,
    statistic: Callable[[FloatArray], FloatArray],
    seed: int,
    n_boot: int = DEFAULT_RESAMPLES,
    level: float = DEFAULT_LEVEL,
) -> tuple[float, float, float]:
    """Value and interval of a function of column means (a ratio of sums, a difference, ...).

    Args:
        columns_bc: Values, [images, columns].
        statistic: Maps means [r, columns] to [r]; sees the plain means (r = 1) for the value.
        seed: Seed of the draws.
        n_boot: Number of resamples.
        level: Coverage of the interval.

    Returns:
        (value, low, high); all NaN if there are no images, the ends as of `percentile_interval`.
    """
    columns = np.asarray(columns_bc, dtype=np.float64)
    if not len(columns):
        return float("nan"), float("nan"), float("nan")
    with np.errstate(divide="ignore", invalid="ignore"):
        value = float(statistic(columns.mean(axis=0, keepdims=True))[0])
        drawn_r = statistic(resample_means(columns, seed, n_boot))
    return percentile_interval(value, drawn_r, len(columns), level)


def percentile_interval(
    value: float, drawn_r: FloatArray, n: int, level: float
) -> tuple[float, float, float]:
    """A figure with the percentile interval of its resamples.

    Args:
        value: The figure.
        drawn_r: Its resamples; NaN where one has no value.
        n: Images that were resampled; of two samples the smaller number.
        level: Coverage of the interval.

    Returns:
        (value, low, high); an end is infinite if resamples are. No ends (NaN) without resamples,
        below `LEAST_IMAGES` images, and below `LEAST_CONSTANT` images that all agree.
    """
    # A resample whose denominator vanished altogether (0 / 0) carries no value.
    drawn_r = drawn_r[~np.isnan(drawn_r)]
    if n < LEAST_IMAGES or not len(drawn_r):
        return value, float("nan"), float("nan")
    least, most = float(drawn_r.min()), float(drawn_r.max())
    if n < LEAST_CONSTANT and math.isclose(least, most, rel_tol=1e-12, abs_tol=_ROUNDING):
        return value, float("nan"), float("nan")
    tail = (1.0 - level) / 2.0
    # "nearest" never interpolates, so a resample at infinity stays out of the other end.
    low, high = np.quantile(drawn_r, [tail, 1.0 - tail], method="nearest")
    return value, float(low), float(high)


def bootstrap_mean(
    values: ArrayLike,
    seed: int,
    n_boot: int = DEFAULT_RESAMPLES,
    level: float = DEFAULT_LEVEL,
) -> tuple[float, float, float]:
    """Mean of one value per image, with its interval; no rate (`vista.metrics.rates`).

    Args:
        values: [images]; finite.
        seed: Seed of the draws.
        n_boot: Number of resamples.
        level: Coverage of the interval.

    Returns:
        (mean, low, high); all NaN if there are no images, no ends (NaN) below `LEAST_IMAGES`.
    """
    values_b1 = np.asarray(values, dtype=np.float64).reshape(-1, 1)
    return bootstrap(values_b1, lambda m: m[:, 0], seed, n_boot, level)


def bootstrap_ratio(
    numerator_b: ArrayLike,
    denominator_b: ArrayLike,
    seed: int,
    n_boot: int = DEFAULT_RESAMPLES,
    level: float = DEFAULT_LEVEL,
) -> tuple[float, float, float]:
    """Ratio of two sums over the same images (error per token), with its interval; no rate.

    Args:
        numerator_b: [images]; finite.
        denominator_b: [images]; finite.
        seed: Seed of the draws.
        n_boot: Number of resamples.
        level: Coverage of the interval.

    Returns:
        (ratio, low, high); NaN where 0 / 0, infinite where only the denominator vanishes; no ends
        (NaN) below `LEAST_IMAGES`.
    """
    columns = np.stack(
        [np.asarray(numerator_b, dtype=np.float64), np.asarray(denominator_b, dtype=np.float64)],
        axis=1,
    )
    return bootstrap(columns, lambda m: m[:, 0] / m[:, 1], seed, n_boot, level)
