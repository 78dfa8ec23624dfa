"""Monosemanticity on planted images: the definition by hand, its ends, its controls."""

from __future__ import annotations

import numpy as np
import pytest

from vista.inputs.control_dictionaries import random_directions
from vista.metrics.monosemanticity.measure import (
    matching_weights,
    monosemanticity,
    monosemanticity_scores,
)

RNG = np.random.default_rng(0)


def test_the_sum_over_pairs() -> None:
    activation = RNG.normal(size=(12, 5))
    embedding = RNG.normal(size=(12, 7))
    unit = embedding / np.linalg.norm(embedding, axis=1, keepdims=True)
    similarity = unit @ unit.T
    scaled = activation - activation.min(axis=0)
    scaled /= scaled.max(axis=0)
    wanted = []
    for a in scaled.T:
        weight = [a[i] * a[j] for i in range(12) for j in range(i)]
        value = [similarity[i, j] for i in range(12) for j in range(i)]
        wanted.append(np.average(value, weights=weight))
    np.testing.assert_allclose(monosemanticity_scores(activation, embedding), wanted)


def test_one_thing_scores_one_and_two_score_less() -> None:
    embedding = np.repeat(np.eye(3), 4, axis=0)  # three kinds of images, four of each
    kinds = np.repeat(np.eye(3), 4, axis=0)
    two = kinds[:, :1] + kinds[:, 1:2]
    once = np.eye(12)[:, :1]
    silent = np.zeros((12, 1))
    score = monosemanticity_scores(np.hstack([kinds, two, once, silent]), 5 * embedding)
    np.testing.assert_allclose(score[:3], 1.0)
    assert score[3] == pytest.approx(12 / 28)  # of its 28 pairs, 12 are of one kind
    assert np.isnan(score[4:]).all()


def test_latents_beat_neurons_and_a_random_dictionary() -> None:
    kind = RNG.integers(0, 8, size=400)
    latents = np.eye(8)[kind] * RNG.uniform(0.5, 1.0, size=(400, 1))
    mixed = latents @ RNG.normal(size=(8, 6))
    embedding = np.eye(8)[kind] + 0.1 * RNG.normal(size=(400, 8))
    random = np.maximum(mixed @ random_directions(6, 20, seed=1).T, 0)
    parts = [slice(0, 150), slice(150, 400)]
    result, scores, fired = monosemanticity(
        (
            ({"sae": latents[p], "neurons": mixed[p], "random": random[p]}, embedding[p])
            for p in parts
        ),
        seed=0,
        resamples=50,
        layer=3,
    )
    whole = monosemanticity_scores(latents, embedding)
    sae, neurons, other = (result.scores[name] for name in ("sae", "neurons", "random"))
    assert sae.value == pytest.approx(whole.mean())
    np.testing.assert_allclose(scores["sae"], whole)
    assert sae.ci_low is None  # 8 latents are too few
    assert other.ci_high is not None and other.ci_high < 0.6
    assert neurons.value is not None and neurons.value < 0.4
    assert other.value is not None and other.value < 0.6
    assert sae.chance == pytest.approx(1 / 8, abs=0.05)
    assert [(row.metric, row.of, row.layer) for row in result.figures()] == [
        ("monosemanticity", name, 3) for name in ("neurons", "random", "random_matched", "sae")
    ]
    assert fired["sae"].tolist() == np.bincount(kind).tolist()
    assert result.images == 400
    assert result.silent == {"sae": 0, "neurons": 0, "random": 0}


def test_the_matched_control_fires_on_as_many_images() -> None:
    weights = matching_weights(np.array([2, 4, 5, 7]), np.array([2, 3, 3, 4, 60]))
    np.testing.assert_allclose(weights, [1 / 3, 1 / 3, 1 / 3, 3, 0])
    # Nothing as rare is there: the nearest stands in.
    np.testing.assert_allclose(
        matching_weights(np.array([2, 900]), np.array([9, 8, 70])), [0.5, 0.5, 1]
    )


def test_rare_latents_that_know_nothing_seem_to_know() -> None:
    # Two images a kind; random latents fire on one kind each or, as the SAE's do, on all of two.
    embedding = np.repeat(np.eye(8), 2, axis=0)
    rare = np.repeat(np.eye(8), 2, axis=0)
    pairs = rare[:, :4] + rare[:, 4:]
    batch = {"sae": pairs, "random": np.hstack([rare, pairs[:, :1]])}
    result, *_ = monosemanticity([(batch, embedding)], seed=0, resamples=20)
    sae, random, matched = (result.scores[name] for name in ("sae", "random", "random_matched"))
    assert sae.value == matched.value == pytest.approx(1 / 3)
    assert random.value is not None and random.value > 0.9
    assert (random.n, matched.n) == (9, 1)
    silent = {"sae": 0 * pairs, "random": rare}
    assert "random_matched" not in monosemanticity([(silent, embedding)], seed=0)[0].scores


def test_refusals() -> None:
    with pytest.raises(ValueError, match="zero or not finite"):
        monosemanticity_scores(np.ones((2, 1)), np.zeros((2, 3)))
    with pytest.raises(ValueError, match="activations of 3 images"):
        monosemanticity_scores(np.ones((3, 1)), np.ones((2, 3)))
    with pytest.raises(ValueError, match="no pair"):
        monosemanticity([({"sae": np.ones((1, 2))}, np.ones((1, 3)))], seed=0)


def test_random_directions_have_unit_norm() -> None:
    rows = random_directions(16, 40, seed=3)
    assert rows.shape == (40, 16)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1.0)
    assert not np.array_equal(rows, random_directions(16, 40, seed=4))
