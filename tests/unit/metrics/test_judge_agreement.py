"""Judges measured on planted verdicts: every figure worked out by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from vista.metrics.judge_agreement.measure import (
    Agreement,
    JudgeAgreementResult,
    Judged,
    Kind,
    agreement_of,
    judge_agreement,
    kappas_of,
    label_truth,
)

DRAWS = (0, 200, 0.95)


def judged(
    truth: Any,
    kind: Kind = "captions",
    unit: Any = None,
    compared: Any = None,
    **verdicts: Any,
) -> Judged:
    truth_io = np.array(truth, dtype=np.int8)
    n = len(truth_io)
    return Judged(
        kind,
        np.arange(n) if unit is None else np.array(unit),
        truth_io,
        {name: np.array(said, dtype=np.int8) for name, said in verdicts.items()},
        np.ones(n, dtype=bool) if compared is None else np.array(compared),
    )


# Two captions of one image, one of another; three categories.
TRUTH = [[1, 0, 0], [1, 0, 0], [0, 1, 1]]
SAID = [[1, 1, 0], [0, 0, -1], [0, 1, 0]]


def test_against_truth_by_hand() -> None:
    (found,) = agreement_of(judged(TRUTH, unit=[7, 7, 9], it=SAID), DRAWS)
    # Answered 8: hits 2, false alarm 1, misses 2, right refusals 3.
    assert (found.items, found.judge) == ("captions", "it")
    assert (found.n, found.unanswered, found.n_true) == (8, 1, 4)
    assert found.accuracy.value == pytest.approx(5 / 8)
    assert found.accuracy.chance == pytest.approx(3 / 8 * 4 / 8 + 5 / 8 * 4 / 8)
    assert found.balanced_accuracy.value == pytest.approx((2 / 4 + 3 / 4) / 2)
    assert found.balanced_accuracy.chance == 0.5
    assert (found.precision.value, found.precision.n) == (pytest.approx(2 / 3), 3)
    assert found.precision.chance == pytest.approx(4 / 8)
    assert (found.recall.value, found.recall.n) == (pytest.approx(2 / 4), 4)
    assert found.recall.chance == pytest.approx(3 / 8)
    assert found.accuracy.n == found.balanced_accuracy.n == 8


def test_intervals_are_over_whole_images() -> None:
    truth, said, images = TRUTH * 10, SAID * 10, np.arange(30)
    (once,) = agreement_of(judged(truth, it=said), DRAWS)
    twice = {"truth": truth * 2, "it": said * 2}
    # A second caption of an image that says the same tells nothing more; that of another would.
    (same,) = agreement_of(judged(unit=[*images, *images], **twice), DRAWS)
    (other,) = agreement_of(judged(**twice), DRAWS)

    def widths(agreement: Agreement) -> list[float]:
        estimates = (
            *(agreement.accuracy, agreement.balanced_accuracy),
            *(agreement.precision, agreement.recall),
        )
        return [(e.ci_high or 0) - (e.ci_low or 0) for e in estimates]

    assert widths(same) == pytest.approx(widths(once))
    for narrow, wide in zip(widths(other), widths(once), strict=True):
        assert 0.5 * wide < narrow < 0.85 * wide
    (few,) = agreement_of(judged(TRUTH, it=SAID), DRAWS)
    assert few.recall.ci_low is None and few.balanced_accuracy.ci_low is None


def test_a_judge_that_says_yes_to_all_is_at_chance() -> None:
    (found,) = agreement_of(judged(TRUTH, yes=np.ones((3, 3))), DRAWS)
    assert found.accuracy.value == found.accuracy.chance == pytest.approx(4 / 9)
    assert found.balanced_accuracy.value == 0.5
    assert found.precision.value == found.precision.chance == pytest.approx(4 / 9)
    assert found.recall.value == found.recall.chance == 1


def test_a_judge_that_never_says_yes_has_no_precision() -> None:
    (found,) = agreement_of(judged(TRUTH, no=np.zeros((3, 3))), DRAWS)
    assert found.precision.value is None and found.precision.n == 0
    assert found.precision.ci_low is None
    assert found.recall.value == 0
    assert found.accuracy.value == found.accuracy.chance == pytest.approx(5 / 9)


def test_only_a_label_that_is_a_category_has_a_truth() -> None:
    names = ["cat", "Hot dog", "dog", "Bus", "bus "]
    labels = [" Cat", "hot dog", "a dog", "bus", "dogs", ""]
    assert label_truth(labels, names).tolist() == [
        [1, 0, 0, 0, 0],
        [0, 1, 0, 0, 0],
        [-1] * 5,
        # Two categories have that name: nobody knows which is meant.
        [-1] * 5,
        [-1] * 5,
        [-1] * 5,
    ]


def test_items_without_a_truth_serve_kappa_alone() -> None:
    part = judged(
        [[1, 0], [-1, -1], [-1, -1], [0, 1]],
        kind="labels",
        compared=[True, True, True, False],
        a=[[1, 0], [1, 0], [-1, 0], [0, 0]],
        b=[[1, 1], [0, 0], [1, 0], [1, 1]],
        c=[[1, 0], [1, 0], [1, 0], [1, 0]],
    )
    a, b, c = agreement_of(part, DRAWS)
    assert (a.n, a.unanswered, a.n_true) == (4, 0, 2)
    assert [x.accuracy.value for x in (a, b, c)] == pytest.approx([3 / 4, 2 / 4, 2 / 4])
    kappas = kappas_of(part, DRAWS)
    assert [x.judges for x in kappas] == [("a", "b"), ("a", "c"), ("b", "c")]
    # Five pairs that both answered: both yes 1, only a 1, only b 1, both no 2.
    assert (kappas[0].n, kappas[0].unanswered) == (5, 1)
    assert kappas[0].agreement.value == pytest.approx(3 / 5)
    assert kappas[0].agreement.chance == pytest.approx(2 / 5 * 2 / 5 + 3 / 5 * 3 / 5)
    assert kappas[0].kappa.value == pytest.approx((15 / 25 - 13 / 25) / (1 - 13 / 25))
    assert kappas[0].kappa.chance == 0
    assert kappas[1].kappa.value == 1
    assert kappas[1].kappa.ci_low is None  # two labels on which they agree are no certainty


def test_judges_that_always_say_the_same_have_no_kappa() -> None:
    (found,) = kappas_of(judged(TRUTH, a=np.zeros((3, 3)), b=np.zeros((3, 3))), DRAWS)
    assert found.agreement.value == 1
    assert found.kappa.value is None and found.kappa.ci_low is None


def result() -> JudgeAgreementResult:
    labels = judged([[1, 0, 0], [-1, -1, -1]], kind="labels", a=[[1, 0, 0]] * 2, b=[[0, 1, 0]] * 2)
    return judge_agreement(
        judged(TRUTH, unit=[7, 7, 9], a=SAID, b=TRUTH),
        labels,
        judged(np.zeros((0, 3)), kind="images"),
        judges={"a": "api:one", "b": "lexical"},
        seed=0,
        resamples=50,
        level=0.95,
    )


def test_rows_say_of_what_and_whom() -> None:
    found = result()
    assert (found.n_captions, found.n_images, found.n_categories) == (3, 0, 3)
    assert (found.n_labels, found.n_named_labels) == (2, 1)
    rows = {(row.metric, row.set, row.of, row.method): row for row in found.figures()}
    assert len(rows) == len(found.figures()) == 2 * 2 * 5 + 2 * 2
    assert rows["judge_accuracy", "captions", "a", None].value == pytest.approx(5 / 8)
    assert rows["judge_unanswered", "captions", "a", None].value == pytest.approx(1 / 9)
    assert rows["judge_unanswered", "captions", "a", None].n == 9
    assert rows["judge_accuracy", "captions", "b", None].value == 1
    assert rows["judge_recall", "labels", "b", None].value == 0
    kappa = rows["judge_kappa", "labels", "a", "b"]
    assert kappa.value == pytest.approx((1 / 3 - 5 / 9) / (1 - 5 / 9))
    assert rows["judge_agreement", "labels", "a", "b"].chance == pytest.approx(5 / 9)
    assert {row.set for row in found.figures()} == {"captions", "labels"}


def test_the_same_seed_gives_the_same_result() -> None:
    assert result() == result()
