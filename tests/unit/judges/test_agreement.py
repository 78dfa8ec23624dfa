"""Agreement with truth and between judges, against values worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from vista.judges.agreement import (
    accuracy,
    balanced_accuracy,
    chance_accuracy,
    cohens_kappa,
    pair_counts,
    precision,
    recall,
    share_accepted,
    share_true,
)

# 3 hits, 1 miss, 2 false alarms, 4 right refusals.
COUNTS = np.array([3, 2, 1, 4])


def test_pairs_are_counted_by_item_and_the_unanswered_in_none() -> None:
    said = [[1, 1, 1, 1, -1], [1, 1, 0, 0, 0]]
    true = [[1, 1, 1, 0, 1], [0, -1, 1, 0, 0]]
    assert pair_counts(said, true).tolist() == [[3, 1, 0, 0], [0, 1, 1, 2]]
    assert pair_counts([[True, False]], [[True, True]]).tolist() == [[1, 0, 1, 0]]


def test_figures_by_hand() -> None:
    assert accuracy(COUNTS) == pytest.approx(7 / 10)
    assert precision(COUNTS) == pytest.approx(3 / 5)
    assert recall(COUNTS) == pytest.approx(3 / 4)
    assert balanced_accuracy(COUNTS) == pytest.approx((3 / 4 + 4 / 6) / 2)
    assert share_true(COUNTS) == pytest.approx(4 / 10)
    assert share_accepted(COUNTS) == pytest.approx(5 / 10)
    assert chance_accuracy(COUNTS) == pytest.approx(0.5 * 0.4 + 0.5 * 0.6)
    # Of several counts at once, each its own.
    assert recall([COUNTS, [1, 0, 3, 0]]).tolist() == [0.75, 0.25]


def test_a_judge_that_always_says_yes_is_at_chance() -> None:
    counts = pair_counts(np.ones((1, 4), dtype=bool), [[True, False, False, False]]).sum(axis=0)
    assert accuracy(counts) == chance_accuracy(counts) == 0.25
    assert balanced_accuracy(counts) == 0.5
    assert precision(counts) == share_true(counts) == 0.25
    assert recall(counts) == share_accepted(counts) == 1


def test_a_share_of_nothing_is_nan_not_zero() -> None:
    nothing_true_or_accepted = [0, 0, 0, 5]
    assert np.isnan(precision(nothing_true_or_accepted))
    assert np.isnan(recall(nothing_true_or_accepted))
    assert np.isnan(accuracy([0, 0, 0, 0])) and np.isnan(cohens_kappa([0, 0, 0, 0]))


def test_kappa_of_cohens_table() -> None:
    # 20 both yes, 5 first alone, 10 second alone, 15 both no: agreement .7, by chance .5.
    assert cohens_kappa([20, 5, 10, 15]) == pytest.approx(0.4)
    assert cohens_kappa([20, 10, 5, 15]) == pytest.approx(0.4)


def test_kappa_at_the_ends() -> None:
    assert cohens_kappa([2, 0, 0, 2]) == 1
    assert cohens_kappa([0, 2, 2, 0]) == -1
    assert np.isnan(cohens_kappa([2, 0, 0, 0]))


def test_refuses_what_cannot_be_compared() -> None:
    with pytest.raises(ValueError, match=r"\[items, objects\]"):
        pair_counts([[1]], [[1, 0]])
    with pytest.raises(ValueError, match=r"\[items, objects\]"):
        pair_counts([1], [1])
    with pytest.raises(ValueError, match="1, 0 or -1"):
        pair_counts([[2]], [[1]])
