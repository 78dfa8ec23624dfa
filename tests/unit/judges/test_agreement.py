"""Agreement with truth and between judges, against values worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from vista.judges.agreement import agreement_with_truth, cohens_kappa


def test_against_truth() -> None:
    # 3 hits, 1 miss, 1 false alarm, 4 right refusals, 1 unanswered.
    said = [1, 1, 1, 0, 1, 0, 0, 0, 0, -1]
    true = [1, 1, 1, 1, 0, 0, 0, 0, 0, 1]
    found = agreement_with_truth(said, true)
    assert (found.n, found.unanswered, found.n_true) == (9, 1, 4)
    assert found.accuracy == pytest.approx(7 / 9)
    assert found.precision == found.recall == pytest.approx(3 / 4)
    assert found.balanced_accuracy == pytest.approx((3 / 4 + 4 / 5) / 2)
    assert found.chance == pytest.approx(4 / 9 * 4 / 9 + 5 / 9 * 5 / 9)


def test_a_judge_that_always_says_yes_is_at_chance() -> None:
    true = np.array([[True, False], [False, False]])
    found = agreement_with_truth(np.ones((2, 2), dtype=bool), true)
    assert found.accuracy == found.chance == 0.25
    assert found.balanced_accuracy == 0.5


def test_nothing_to_share_is_nan_not_zero() -> None:
    found = agreement_with_truth([0, -1], [0, 0])
    assert math.isnan(found.precision) and math.isnan(found.recall)
    assert agreement_with_truth([-1], [0]).n == 0
    assert math.isnan(cohens_kappa([], []).kappa)


def test_kappa_of_cohens_table() -> None:
    # 20 both yes, 5 first alone, 10 second alone, 15 both no: kappa .4.
    one = [1] * 25 + [0] * 25 + [-1]
    other = [1] * 20 + [0] * 5 + [1] * 10 + [0] * 15 + [1]
    found = cohens_kappa(one, other)
    assert (found.n, found.unanswered) == (50, 1)
    assert found.agreement == pytest.approx(0.7) and found.chance == pytest.approx(0.5)
    assert found.kappa == pytest.approx(0.4)
    assert cohens_kappa(other, one) == found


def test_kappa_at_the_ends() -> None:
    mixed = [1, 0, 1, 0]
    assert cohens_kappa(mixed, mixed).kappa == 1
    assert cohens_kappa(mixed, [0, 1, 0, 1]).kappa == -1
    assert math.isnan(cohens_kappa([1, 1], [1, 1]).kappa)


def test_refuses_what_cannot_be_compared() -> None:
    with pytest.raises(ValueError, match="shapes differ"):
        cohens_kappa([1], [1, 0])
    with pytest.raises(ValueError, match="shapes differ"):
        agreement_with_truth([[1]], [1])
    with pytest.raises(ValueError, match="1, 0 or -1"):
        cohens_kappa([2], [1])
    with pytest.raises(ValueError, match="ground truth"):
        agreement_with_truth([1], [-1])
