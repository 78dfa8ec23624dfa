"""Bootstrap: known intervals, pairing, and figures that cannot be measured."""

from __future__ import annotations

import math

import numpy as np
import pytest

from vista.metrics.bootstrap import (
    LEAST_CONSTANT,
    LEAST_IMAGES,
    _kept_counts,
    bootstrap,
    bootstrap_mean,
    bootstrap_ratio,
    resample_means,
)


def test_interval_of_a_mean_has_the_textbook_width() -> None:
    values = np.random.default_rng(0).normal(3.0, 2.0, size=400)
    mean, low, high = bootstrap_mean(values, seed=1, n_boot=2000)
    assert mean == pytest.approx(values.mean())
    half = 1.96 * values.std() / math.sqrt(400)
    assert low == pytest.approx(mean - half, rel=0.03)
    assert high == pytest.approx(mean + half, rel=0.03)


def test_coverage_of_a_share() -> None:
    rng = np.random.default_rng(2)
    inside = 0
    for seed in range(200):
        _, low, high = bootstrap_mean(rng.random(80) < 0.3, seed=seed, n_boot=200)
        inside += low <= 0.3 <= high
    assert 175 <= inside <= 199


def test_ratio_resamples_images_not_pairs() -> None:
    # One image holds all hits: the interval must know that it may be drawn or not.
    hits, pairs = np.zeros(20), np.full(20, 50.0)
    hits[0] = 50.0
    ratio, low, high = bootstrap_ratio(hits, pairs, seed=0)
    assert ratio == pytest.approx(0.05)
    assert low == 0.0
    assert high >= 0.15


def test_ratio_weighs_images_by_their_tokens() -> None:
    ratio, _, _ = bootstrap_ratio([10.0, 0.0], [10.0, 90.0], seed=0)
    assert ratio == pytest.approx(0.1)


def test_same_seed_gives_paired_draws() -> None:
    first = resample_means(np.arange(30.0)[:, None], seed=3, n_boot=50)
    second = resample_means(2 * np.arange(30.0)[:, None], seed=3, n_boot=50)
    assert np.allclose(2 * first, second)
    assert not np.allclose(first, resample_means(np.arange(30.0)[:, None], seed=4, n_boot=50))


def test_a_constant_difference_has_no_width() -> None:
    values = np.random.default_rng(0).random(50)
    pair = np.stack([values + 0.25, values], axis=1)
    result = bootstrap(pair, lambda m: m[:, 0] - m[:, 1], seed=0)
    assert result == pytest.approx((0.25, 0.25, 0.25))


def test_no_images_are_undefined_and_few_have_no_interval() -> None:
    assert all(math.isnan(x) for x in bootstrap_mean([], seed=0))
    values = np.arange(float(LEAST_IMAGES))
    mean, *ends = bootstrap_mean(values[1:], seed=0)
    assert mean == values[1:].mean() and np.isnan(ends).all()
    assert np.isfinite(bootstrap_mean(values, seed=0)).all()


def test_least_images_are_the_fewest_with_which_the_mean_of_normal_values_is_covered() -> None:
    """Simulated, with the limits of the bootstrap distribution: mean and variance of resamples."""

    def coverage(n: int) -> float:
        values = np.random.default_rng(0).normal(size=(40_000, n))
        half = 1.96 * values.std(axis=1) / math.sqrt(n)
        return float((np.abs(values.mean(axis=1)) <= half).mean())

    assert coverage(LEAST_IMAGES) == pytest.approx(0.904, abs=0.004)
    assert coverage(LEAST_IMAGES - 2) < 0.895
    assert coverage(5) == pytest.approx(0.845, abs=0.006)


def test_few_images_that_agree_are_no_certainty() -> None:
    for constant in (0.0, 0.1):
        _, low, high = bootstrap_mean(np.full(LEAST_CONSTANT - 1, constant), seed=0)
        assert math.isnan(low) and math.isnan(high)
        whole = bootstrap_mean(np.full(LEAST_CONSTANT, constant), seed=0)
        assert whole == pytest.approx((constant, constant, constant))
    differing = np.append(np.zeros(LEAST_CONSTANT - 2), 1.0)
    assert bootstrap_mean(differing, seed=0)[2] > 0


def test_vanishing_denominator() -> None:
    value, low, high = bootstrap_ratio(np.ones(10), np.arange(10) < 1, seed=0)
    assert value == 10.0
    assert low < 10.0 and high == math.inf
    assert all(math.isnan(x) for x in bootstrap_ratio([0.0], [0.0], seed=0))


def test_undefined_values_are_refused_not_averaged() -> None:
    with pytest.raises(ValueError, match="finite"):
        bootstrap_mean([1.0, float("nan")], seed=0)


def test_large_runs_draw_in_blocks_and_stay_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).random((40, 2))
    whole = resample_means(values, seed=5, n_boot=30)
    monkeypatch.setattr("vista.metrics.bootstrap._BLOCK_CELLS", 40 * 7)
    _kept_counts.cache_clear()
    assert np.allclose(resample_means(values, seed=5, n_boot=30), whole)
    monkeypatch.setattr("vista.metrics.bootstrap._KEPT_CELLS", 0)
    assert np.allclose(resample_means(values, seed=5, n_boot=30), whole)
    assert _kept_counts.cache_info().misses == 1
