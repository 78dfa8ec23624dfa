"""Bootstrap intervals over images: resample images, never tokens or pairs of one image.

Tokens of one image depend on each other, so every figure is first summed within its image; the
sums of whole images are then drawn with replacement. Intervals are percentile intervals (Efron and
Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13). A figure that is the same in all
images has an interval of width zero.

Suffixes: b images, c columns, r resamples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]

DEFAULT_RESAMPLES = 1000
DEFAULT_LEVEL = 0.95
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
        (value, low, high); all NaN if there are no images. An end is infinite if resamples are.
    """
    columns = np.asarray(columns_bc, dtype=np.float64)
    if not len(columns):
        return float("nan"), float("nan"), float("nan")
    with np.errstate(divide="ignore", invalid="ignore"):
        value = float(statistic(columns.mean(axis=0, keepdims=True))[0])
        drawn_r = statistic(resample_means(columns, seed, n_boot))
    # A resample whose denominator vanished altogether (0 / 0) carries no value.
    drawn_r = drawn_r[~np.isnan(drawn_r)]
    if not len(drawn_r):
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
    """Mean of one value per image, with its interval.

    Args:
        values: [images]; finite.
        seed: Seed of the draws.
        n_boot: Number of resamples.
        level: Coverage of the interval.

    Returns:
        (mean, low, high); all NaN if there are no images.
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
    """Ratio of two sums over the same images (hits per pair, error per token), with its interval.

    Args:
        numerator_b: [images]; finite.
        denominator_b: [images]; finite.
        seed: Seed of the draws.
        n_boot: Number of resamples.
        level: Coverage of the interval.

    Returns:
        (ratio, low, high); NaN where 0 / 0, infinite where only the denominator vanishes.
    """
    columns = np.stack(
        [np.asarray(numerator_b, dtype=np.float64), np.asarray(denominator_b, dtype=np.float64)],
        axis=1,
    )
    return bootstrap(columns, lambda m: m[:, 0] / m[:, 1], seed, n_boot, level)
