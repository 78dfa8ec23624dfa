"""Steering: gains and drifts counted by hand, coefficients chosen, AUROC as scikit-learn has it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from vista.metrics.diffusion_steering.measure import (
    LATENT,
    RANDOM,
    Steered,
    choose_coefficient,
    most_selective,
    steering,
)
from vista.metrics.selectivity import selectivity

BOOTSTRAP: dict[str, Any] = {"seed": 0, "resamples": 50, "level": 0.95}


def steered(
    before: str, after: str, grounds: str, method: str = LATENT, coefficient: float = 1.0
) -> Steered:
    """Letters are colours; the grounds are "s" in all unedited images, rows never change."""
    b = len(before)
    return Steered(
        "add",
        "colour",
        "r",
        method,
        coefficient,
        np.arange(b),
        {"colour": np.array([*before]), "ground": np.array(["s"] * b), "row": np.array(["t"] * b)},
        {"colour": np.array([*after]), "ground": np.array([*grounds]), "row": np.array(["t"] * b)},
    )


def test_gain_and_drift_by_hand() -> None:
    # One came, one was there, one went, one turned into another colour: no gain at all.
    one = steered("bbrgr", "rggbr", "swsws")
    np.testing.assert_array_equal(one.gain_b, [1, 0, -1, 0, 0])
    # Its own attribute is no drift; of the two others one changed, in two images.
    np.testing.assert_array_equal(one.drift_b(["colour", "ground", "row"]), [0, 0.5, 0, 0.5, 0])
    np.testing.assert_array_equal(one.drift_b(["ground"]), [0, 1, 0, 1, 0])
    assert not one.drift_b(["colour"]).any()
    gone = Steered("ablate", *list(vars(one).values())[1:])
    np.testing.assert_array_equal(gone.gain_b, -one.gain_b)


def test_the_largest_gain_within_the_drift_is_chosen() -> None:
    weak = steered("bbbb", "rbbb", "ssss", coefficient=0.5)
    right = steered("bbbb", "rrrb", "ssww", coefficient=1.0)
    same = steered("bbbb", "brrr", "ssss", coefficient=2.0)
    wild = steered("bbbb", "rrrr", "wwww", coefficient=4.0)
    found = [wild, same, right, weak]
    # Of equal gains the smaller coefficient, and none that drifts too far.
    assert choose_coefficient(found, ["ground", "row"], max_drift=0.3) == 1.0
    assert choose_coefficient(found, ["ground", "row"], max_drift=0.1) == 2.0
    assert choose_coefficient(found, ["ground", "row"], max_drift=0.5) == 4.0
    assert choose_coefficient([wild, same], ["ground"], max_drift=-1) == 2.0


def test_a_method_is_paired_with_the_random_direction() -> None:
    latent = [steered("bbbb", "rrrb", "swss"), steered("bb", "rb", "ss")]
    random = [steered("bbbb", "rbbb", "ssss", RANDOM), steered("bb", "bb", "ww", RANDOM)]
    right = (np.array([True] * 9 + [False]), 0.25)
    wrong = (np.array([True, False] * 5), 0.5)
    shown = {"colour": right, "ground": right, "row": wrong}
    result = steering([*random, *latent], shown, shown, {"colour": [0.9, 0.7]}, **BOOTSTRAP)
    # Rows of objects are not drawn as told: they say nothing of drift.
    assert result.readable == ["colour", "ground"]
    ours, chance = result.methods
    assert (ours.method, chance.method) == (LATENT, RANDOM)
    # 4 of 6 images came, 1 of 6 by chance; 1 of 6 grounds changed, 2 of 6 by chance.
    assert ours.gain.value == pytest.approx(4 / 6)
    assert ours.gain.chance == chance.gain.value == pytest.approx(1 / 6)
    assert ours.gain_over_random.value == pytest.approx(3 / 6)
    assert (ours.drift.value, ours.drift.chance) == pytest.approx((1 / 6, 2 / 6))
    assert ours.gain.n == 6
    assert chance.gain_over_random.value == 0
    assert chance.gain_over_random.ci_low is None  # 4 prompts are too few
    rows = {(row.metric, row.of, row.set): row for row in result.figures()}
    assert rows["steering_gain", "latent", "colour"].value == ours.gain.value
    assert rows["prompt_adherence", None, "colour"].chance == 0.25
    assert rows["latent_auroc", None, "colour"].value == pytest.approx(0.8)


def test_drift_is_undefined_where_nothing_else_can_be_read() -> None:
    random = steered("bb", "bb", "ss", RANDOM)
    shown = {"colour": (np.array([True] * 10), 0.25), "row": (np.array([True, False] * 5), 0.5)}
    ours, _ = steering([steered("bb", "rb", "ss"), random], {}, shown, {}, **BOOTSTRAP).methods
    assert ours.drift.value is None
    assert ours.gain.value == 0.5


def test_auroc_is_that_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    score = np.maximum(rng.standard_normal((60, 5)).round(1), 0).astype(np.float32)
    positive = rng.random((60, 3)) < 0.3
    expected = [[roc_auc_score(positive[:, c], score[:, s]) for c in range(3)] for s in range(5)]
    np.testing.assert_allclose(selectivity(score, positive), expected)
    assert np.isnan(selectivity(score, np.zeros((60, 1), bool))).all()


def test_of_equal_latents_the_one_that_writes_most_is_taken() -> None:
    positive = np.array([[1, 0], [1, 0], [0, 1], [0, 1]], dtype=bool)
    score = np.array([[0, 1, 3, 9], [0, 2, 4, 0], [5, 0, 0, 0], [6, 0, 0, 0]], dtype=np.float32)
    latents, auroc = most_selective(score, positive, np.ones(4, np.float32))
    # The last fires most, but not on all of its concept.
    assert latents.tolist() == [2, 0]
    assert auroc.tolist() == [1, 1]
    short = np.array([1, 1, 0.1, 1], np.float32)
    assert most_selective(score, positive, short)[0].tolist() == [1, 0]
