"""Intervals of rates: against closed forms, exact binomial coverage, and simulated clusters."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from vista.metrics.rates import LEAST_IMAGES, effective_tries, mid_p_limits, rate_interval

Floats = NDArray[np.float64]

RATES = (0.002, 0.01, 0.5, 0.98)
NUMBERS = (20, 60, 400)
CELLS = list(itertools.product(RATES, NUMBERS))


def binomial(n: int, rate: float) -> Floats:
    """P(0..n hits) of n tries, from factorials."""
    logs = [math.lgamma(n + 1) - math.lgamma(x + 1) - math.lgamma(n - x + 1) for x in range(n + 1)]
    x = np.arange(n + 1)
    return np.exp(np.array(logs) + x * math.log(rate) + (n - x) * math.log1p(-rate))


# The limits.


@pytest.mark.parametrize("n", [5, 20, 400])
def test_without_a_hit_the_upper_limit_is_that_of_the_rule_of_three(n: int) -> None:
    # (1 - high)^n / 2 = .025.
    rate, low, high = rate_interval(np.zeros(n), np.ones(n), 0.95)
    assert (rate, low) == (0, 0)
    assert high == pytest.approx(1 - 0.05 ** (1 / n))
    assert rate_interval(np.ones(n), np.ones(n), 0.95) == pytest.approx((1, 1 - high, 1))


@pytest.mark.parametrize(("hits", "n"), [(1, 8), (3, 20), (10, 20), (59, 60), (5, 400)])
def test_limits_have_the_tails_of_the_binomial(hits: int, n: int) -> None:
    outcomes = np.arange(n) < hits
    rate, low, high = rate_interval(outcomes, np.ones(n), 0.9)
    assert rate == hits / n
    below, above = binomial(n, low), binomial(n, high)
    assert below[hits + 1 :].sum() + below[hits] / 2 == pytest.approx(0.05)
    assert above[:hits].sum() + above[hits] / 2 == pytest.approx(0.05)


def test_limits_agree_with_the_normal_approximation_where_it_holds() -> None:
    outcomes = np.arange(10_000) % 2
    _, low, high = rate_interval(outcomes, np.ones(10_000), 0.95)
    assert (low, high) == pytest.approx((0.5 - 0.0098, 0.5 + 0.0098), abs=1e-5)


# The effective number of tries.


def test_images_with_one_try_are_independent_tries() -> None:
    hits = np.arange(50) < 7
    assert effective_tries(hits, np.ones(50)) == pytest.approx(50)


@pytest.mark.parametrize("hits", [0, 3, 50])
def test_tries_that_repeat_each_other_count_once(hits: int) -> None:
    outcomes = np.arange(50) < hits
    once = rate_interval(outcomes, np.ones(50), 0.95)
    assert rate_interval(4 * outcomes, np.full(50, 4), 0.95) == pytest.approx(once)


def test_images_of_unlike_size_without_a_hit_count_as_fully_dependent() -> None:
    tries = np.array([1.0, 2, 3, 10, 4, 7])
    expected = tries.sum() ** 2 / (tries**2).sum()  # Kish's number of clusters of equal weight
    assert effective_tries(np.zeros(6), tries) == pytest.approx(expected)


def test_many_tries_have_the_design_effect_of_the_ratio_estimator() -> None:
    rng = np.random.default_rng(0)
    tries = rng.integers(1, 9, 20_000).astype(float)
    hits = rng.binomial(tries.astype(int), rng.beta(1.4, 2.1, 20_000)).astype(float)
    rate = hits.sum() / tries.sum()
    variance = ((hits - rate * tries) ** 2).sum() / tries.sum() ** 2
    assert effective_tries(hits, tries) == pytest.approx(rate * (1 - rate) / variance, rel=1e-3)


def test_means_of_shares_are_narrower_than_rates() -> None:
    """Shares of layers vary less than 0 and 1: their interval is that of their variance."""
    shares = np.random.default_rng(0).integers(0, 4, 400) / 3
    mean, low, high = rate_interval(shares, np.ones(400), 0.95)
    half = 1.96 * shares.std() / 20
    assert (low, high) == pytest.approx((mean - half, mean + half), abs=0.002)


# What has no interval.


def test_few_images_have_a_rate_without_an_interval() -> None:
    few = LEAST_IMAGES - 1
    rate, low, high = rate_interval(np.ones(few), np.ones(few), 0.95)
    assert rate == 1 and math.isnan(low) and math.isnan(high)
    # Tries do not stand for images, and images without a try do not count.
    tries = np.array([50.0] * few + [0.0] * 9)
    assert math.isnan(rate_interval(tries / 2, tries, 0.95)[1])
    assert rate_interval(np.ones(few + 1), np.ones(few + 1), 0.95)[2] == 1
    assert all(math.isnan(x) for x in rate_interval([], [], 0.95))
    assert all(math.isnan(x) for x in rate_interval([0.0], [0.0], 0.95))


@pytest.mark.parametrize(
    ("hits", "tries", "message"),
    [
        ([2.0], [1.0], "more hits than tries"),
        ([-1.0], [1.0], "fewer than none"),
        ([math.nan], [1.0], "finite"),
        ([1.0], [1.0, 1.0], "hits and tries"),
    ],
)
def test_what_is_no_rate_is_refused(hits: Any, tries: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rate_interval(hits, tries, 0.95)


# Coverage with one try an image: exact sums over the binomial, no simulation.

# Cells above .97. Hits (or misses) are so rare that 95 % lie between two outcomes.
ABOVE_ONE_TRY = {(0.002, 60), (0.002, 400), (0.01, 20), (0.01, 60), (0.98, 20)}
# Those in which no interval is within .93 to .97: it holds whole outcomes.
OUT_OF_REACH = {(0.002, 60), (0.01, 20), (0.01, 60)}


def exact_coverage(rates: Floats, n: int) -> Floats:
    x = np.arange(n + 1, dtype=np.float64)
    low, high = mid_p_limits(x, np.full(n + 1, float(n)), 0.95)
    return np.array([binomial(n, r)[(low <= r) & (r <= high)].sum() for r in rates.tolist()])


def in_reach(rate: float, n: int) -> bool:
    """Whether some run of outcomes, which is what an interval covers a rate by, has .93 to .97."""
    sums = np.concatenate([[0.0], binomial(n, rate).cumsum()])
    runs = sums[None, :] - sums[:, None]
    return bool(((runs >= 0.93) & (runs <= 0.97)).any())


def test_coverage_with_one_try_an_image() -> None:
    coverage = {(p, n): float(exact_coverage(np.array([p]), n)[0]) for p, n in CELLS}
    assert min(coverage.values()) >= 0.93
    assert {cell for cell, share in coverage.items() if share > 0.97} == ABOVE_ONE_TRY
    assert {cell for cell in CELLS if not in_reach(*cell)} == OUT_OF_REACH
    # In reach of an interval that leaves out one side only, which this one does not.
    assert coverage[0.002, 400] == pytest.approx(0.991, abs=5e-4)
    assert coverage[0.98, 20] == pytest.approx(0.993, abs=5e-4)


@pytest.mark.parametrize("n", NUMBERS)
def test_coverage_averaged_over_rates(n: int) -> None:
    """Over rates from which 3 hits and 3 misses are expected, the mean is close to .95."""
    coverage = exact_coverage(np.linspace(3 / n, 1 - 3 / n, 400), n)
    assert 0.945 <= coverage.mean() <= 0.965
    assert coverage.min() >= 0.91  # beside the jumps of single outcomes


# Coverage with tries that depend on each other within an image, simulated.

# Cells above .97 for 5 tries an image: few hits (or misses) do not tell how tries depend on each
# other, and full dependence is assumed as far as they do not tell.
ABOVE_CLUSTERED = {
    *itertools.product((0.002,), NUMBERS),
    *itertools.product((0.01,), (20, 60)),
    *itertools.product((0.98,), (20, 60)),
}
SAMPLES = 3000
# Three standard errors of a share of .95 in as many samples.
NOISE = 3 * math.sqrt(0.95 * 0.05 / SAMPLES)


def beta_binomial(tries: int, rate: float, correlation: float) -> Floats:
    """Cumulative P(0..tries hits) of tries with this correlation between any two."""
    if correlation == 0:
        return binomial(tries, rate).cumsum()
    a, b = rate * (1 / correlation - 1), (1 - rate) * (1 / correlation - 1)

    def log_beta(u: float, v: float) -> float:
        return math.lgamma(u) + math.lgamma(v) - math.lgamma(u + v)

    return np.cumsum(
        [
            math.comb(tries, x) * math.exp(log_beta(x + a, tries - x + b) - log_beta(a, b))
            for x in range(tries + 1)
        ]
    )


def simulated(rate: float, tries_b: NDArray[np.int64], correlation: float) -> float:
    """Coverage over samples of images with `tries_b` tries."""
    uniform_rb = np.random.default_rng(0).random((SAMPLES, len(tries_b)))
    hits_rb = np.zeros_like(uniform_rb)
    for tries in np.unique(tries_b).tolist():
        cumulative = beta_binomial(tries, rate, correlation)
        hits_rb[:, tries_b == tries] = np.searchsorted(
            cumulative[:-1], uniform_rb[:, tries_b == tries]
        )
    effective_r = effective_tries(hits_rb, np.broadcast_to(tries_b, hits_rb.shape))
    rate_r = hits_rb.sum(axis=1) / tries_b.sum()
    low_r, high_r = mid_p_limits(rate_r * effective_r, effective_r, 0.95)
    return float(((low_r <= rate) & (rate <= high_r)).mean())


def equal(n: int) -> NDArray[np.int64]:
    return np.full(n, 5)


def unlike(n: int) -> NDArray[np.int64]:
    return np.arange(n) % 9 + 1


@pytest.mark.parametrize(
    ("tries_of", "correlation"),
    [(equal, 0.3), (equal, 0.0), (unlike, 0.3)],
    ids=("equal-0.3", "equal-0", "unlike-0.3"),
)
def test_coverage_with_several_tries_an_image(
    tries_of: Callable[[int], NDArray[np.int64]], correlation: float
) -> None:
    coverage = {(p, n): simulated(p, tries_of(n), correlation) for p, n in CELLS}
    assert min(coverage.values()) >= 0.93
    if tries_of is equal and correlation > 0:
        above = {cell for cell, share in coverage.items() if share > 0.97 + NOISE}
        assert above == ABOVE_CLUSTERED
    assert all(coverage[0.5, n] <= 0.97 + NOISE for n in NUMBERS)


def test_the_simulation_would_notice_ignored_dependence() -> None:
    """Tries of an image taken as independent cover a rate of .5 too rarely."""
    tries_b, rate = equal(60), 0.5
    uniform_rb = np.random.default_rng(0).random((SAMPLES, 60))
    hits_r = np.searchsorted(beta_binomial(5, rate, 0.3)[:-1], uniform_rb).sum(axis=1)
    low_r, high_r = mid_p_limits(hits_r, np.full(SAMPLES, float(tries_b.sum())), 0.95)
    assert ((low_r <= rate) & (rate <= high_r)).mean() < 0.87
