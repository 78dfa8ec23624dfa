"""The shuffled-image level equals what many random derangements average to."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from vista.metrics import shuffled
from vista.metrics.bootstrap import bootstrap_mean
from vista.metrics.shuffled import Score, shuffled_level


def derangement(rng: np.random.Generator, n: int) -> NDArray[np.int64]:
    while True:
        order = rng.permutation(n)
        if (order != np.arange(n)).all():
            return order


def planted(n: int, seed: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    rng = np.random.default_rng(seed)
    present = rng.random((n, 6)) < 0.3
    present[np.arange(n), rng.integers(0, 6, n)] = True
    return rng.random((n, 6)) < 0.25, present


@pytest.mark.parametrize("score", ["any", "share", "extra", "any_extra"])
def test_equals_the_average_over_derangements(score: Score) -> None:
    named, present = planted(25, 0)
    level = shuffled_level(named, present, score)
    rng = np.random.default_rng(1)
    drawn = [
        shuffled_level(named, present[derangement(rng, 25)], score).own_b.mean()
        for _ in range(3000)
    ]
    assert level.shuffled == pytest.approx(np.mean(drawn), abs=4 * np.std(drawn) / 3000**0.5)


def test_independent_names_match_at_the_shuffled_level() -> None:
    named, present = planted(4000, 3)
    level = shuffled_level(named, present, "any")
    gain = level.own_b - level.shuffled_b
    mean, low, high = bootstrap_mean(gain, seed=0)
    assert low < 0 < high
    assert abs(mean) < 0.03


def test_perfect_names_of_one_of_four_classes() -> None:
    present = np.eye(4, dtype=bool)[np.arange(40) % 4]
    level = shuffled_level(present, present, "any")
    assert level.own_b.mean() == 1.0
    # 9 of the other 39 images show the same class.
    assert level.shuffled == pytest.approx(9 / 39)


def test_interval_knows_both_sides_of_a_pair() -> None:
    # Everything is named everywhere, so only the objects vary: rows alone would have no spread.
    rng = np.random.default_rng(0)
    present = np.zeros((100, 2), dtype=bool)
    present[np.arange(100), (rng.random(100) < 0.3).astype(int)] = True
    named = np.tile(np.array([True, False]), (100, 1))
    level = shuffled_level(named, present, "any")
    assert level.shuffled == pytest.approx(present[:, 0].mean(), abs=0.01)
    assert level.shuffled_b.std() > 0.3


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    named, present = planted(50, 5)
    whole = shuffled_level(named, present, "share")
    monkeypatch.setattr(shuffled, "_BLOCK", 7)
    pieces = shuffled_level(named, present, "share")
    assert np.allclose(whole.shuffled_b, pieces.shuffled_b)


def test_one_image_has_no_other() -> None:
    level = shuffled_level(np.ones((1, 2), bool), np.ones((1, 2), bool), "any")
    assert level.own_b.tolist() == [1.0]
    assert np.isnan(level.shuffled)


def test_an_image_without_objects_is_refused() -> None:
    with pytest.raises(ValueError, match="without any object"):
        shuffled_level(np.ones((2, 2), bool), np.array([[True, False], [False, False]]), "any")
