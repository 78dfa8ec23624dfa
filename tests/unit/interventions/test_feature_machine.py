"""Recursive feature machines: gradients by differences, rounds by hand, what held-out images
choose, and concepts that no mean tells apart."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from vista.interventions.feature_machine import (
    BANDWIDTHS,
    Floats,
    KernelMachine,
    _rounds,
    images_of_tokens,
    rfm,
    top_direction,
)
from vista.interventions.methods.logistic import logistic
from vista.interventions.methods.mean_difference import mean_difference
from vista.interventions.search import Selection


def test_gradients_are_those_of_the_fit_without_the_examples_own_term() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((7, 3))
    root = rng.standard_normal((3, 3))
    machine = KernelMachine.fit(x, rng.standard_normal(7), root @ root.T, 2.0)
    step = 1e-6
    for n, gradient in enumerate(machine.gradients()):
        others = np.arange(7) != n
        rest = KernelMachine(x[others], machine.weight_n[others], machine.m_dd, 2.0)
        for d in range(3):
            at = np.stack([x[n], x[n]])
            at[0, d] -= step
            at[1, d] += step
            low, high = rest.predict(at)
            assert gradient[d] == pytest.approx((high - low) / (2 * step), rel=1e-5, abs=1e-8)


def test_a_fit_is_ridge_regression() -> None:
    rng = np.random.default_rng(1)
    x, y = rng.standard_normal((6, 2)), rng.standard_normal(6)
    machine = KernelMachine.fit(x, y, np.eye(2), 3.0)
    distance = np.linalg.norm(x[:, None] - x, axis=2)
    expected = np.linalg.solve(np.exp(-distance / 3) + 1e-3 * np.eye(6), y)
    assert machine.weight_n == pytest.approx(expected)
    # Equal examples lie at distance 0, where the kernel has no gradient.
    twice = KernelMachine(x[[0, 0]], np.ones(2), np.eye(2), 3.0)
    assert not twice.gradients().any()


@pytest.mark.parametrize("concept", ["product", "square"])
def test_a_planted_subspace_is_found_where_means_and_weights_find_none(concept: str) -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((400, 10)).astype(np.float32)
    positive = (x[:, 0] * x[:, 1] > 0) if concept == "product" else (x[:, 0] ** 2 > 0.5)
    planted = 2 if concept == "product" else 1

    def share(row: NDArray[np.float32]) -> float:
        return float(np.square(row[:planted]).sum())

    found = rfm(x, positive[None], np.arange(400), seed=0)[0]
    assert np.linalg.norm(found) == pytest.approx(1, abs=1e-6)
    assert share(found) > 0.95
    for rival in (mean_difference(x, positive[None])[0], logistic(x, positive[None], 1.0)[0]):
        assert share(rival) < 0.6


def outer_by_hand(x: Floats, y: Floats, m: Floats, bandwidth: float, centred: bool) -> list[Floats]:
    """Weights of ridge regression under M, and the outer product of gradients, by loops."""
    size = range(len(x))
    distance = np.array([[np.sqrt((x[i] - x[j]) @ m @ (x[i] - x[j])) for j in size] for i in size])
    kernel = np.exp(-distance / bandwidth)
    weights = np.linalg.inv(kernel + 1e-3 * np.eye(len(x))) @ y
    gradients = np.zeros_like(x)
    for i in size:
        for j in set(size) - {i}:
            slope = -weights[j] * kernel[i, j] / (bandwidth * distance[i, j])
            gradients[i] += slope * m @ (x[i] - x[j])
    if centred:
        gradients -= gradients.mean(axis=0)
    outer = np.sum([np.outer(row, row) for row in gradients], axis=0)
    return [weights, outer / outer.max()]


@pytest.mark.parametrize("centred", [True, False])
def test_a_round_measures_by_the_outer_product_of_the_round_before(centred: bool) -> None:
    rng = np.random.default_rng(4)
    x, y = rng.standard_normal((8, 3)), rng.standard_normal(8)
    m = np.eye(3)
    for (machine, outer), _ in zip(_rounds(x, y, 2.0, centred), range(3), strict=False):
        weights, expected = outer_by_hand(x, y, m, 2.0, centred)
        assert machine.m_dd == pytest.approx(m, rel=1e-6)
        assert machine.weight_n == pytest.approx(weights, rel=1e-6)
        assert outer == pytest.approx(expected, rel=1e-6)
        m = expected
    assert len(list(_rounds(x, y, 2.0, centred))) == 10


def test_only_later_rounds_find_what_wide_noise_hides() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((400, 12))
    x[:, 1:] *= 2
    positive, held_out = x[:, 0] ** 2 > 0.5, np.arange(400) < 100
    y = np.where(positive, 1.0, -1.0)[~held_out]
    for bandwidth in BANDWIDTHS:
        _, outer = next(_rounds(x[~held_out], y - y.mean(), bandwidth, True))
        assert np.linalg.eigh(outer)[1][0, -1] ** 2 < 0.8
    assert top_direction(x, positive, held_out)[0] ** 2 > 0.99


@pytest.mark.parametrize("centred", [True, False])
@pytest.mark.parametrize("bandwidth", BANDWIDTHS)
def test_held_out_labels_choose_bandwidth_and_centring(bandwidth: float, centred: bool) -> None:
    rng = np.random.default_rng(5)
    x, held_out = rng.standard_normal((260, 4)), np.arange(260) < 200
    positive = (x[:, 0] + rng.standard_normal(260)) > 0.5
    y = np.where(positive[~held_out], 1.0, -1.0)
    found = {}
    for other in ((width, by) for width in BANDWIDTHS for by in (True, False)):
        rounds = _rounds(x[~held_out], y - y.mean(), *other)
        _, (machine, outer) = next(rounds), next(rounds)
        found[other] = np.linalg.eigh(outer)[1][:, -1]
        if other == (bandwidth, centred):
            # Labels that the second fit of this machine tells without a mistake, and no other.
            guess = machine.predict(x[held_out])
    positive[held_out] = guess > np.median(guess)
    expected = found.pop((bandwidth, centred))
    assert all(abs(direction @ expected) < 1 - 1e-6 for direction in found.values())
    assert abs(top_direction(x, positive, held_out) @ expected) == pytest.approx(1, abs=1e-7)


def test_of_machines_that_part_the_labels_alike_the_widest_first_fit_counts() -> None:
    rng = np.random.default_rng(6)
    x, held_out = rng.standard_normal((80, 4)), np.arange(80) < 20
    positive = np.arange(80) % 2 == 0
    x[:, 0] += np.where(positive, 4, -4)
    y = np.where(positive[~held_out], 1.0, -1.0)
    widest, narrowest = (
        np.linalg.eigh(next(_rounds(x[~held_out], y - y.mean(), width, True))[1])[1][:, -1]
        for width in (max(BANDWIDTHS), min(BANDWIDTHS))
    )
    assert abs(widest @ narrowest) < 1 - 1e-4
    assert abs(top_direction(x, positive, held_out) @ widest) == pytest.approx(1, abs=1e-7)


def test_the_sign_is_that_of_the_concept_and_no_scale_counts() -> None:
    rng = np.random.default_rng(2)
    x = rng.standard_normal((300, 6)).astype(np.float32)
    positive = np.stack([x[:, 4] > 0.5, x[:, 4] < -0.5, np.ones(300, bool), np.zeros(300, bool)])
    rows = rfm(x, positive, np.arange(300), seed=0)
    assert rows[0, 4] > 0.9 and rows[1, 4] < -0.9
    assert not rows[2:].any()
    assert rfm(1000 * x + 5, positive[:1], np.arange(300), seed=0)[0] == pytest.approx(
        rows[0], abs=0.02
    )


def test_images_are_held_out_whole() -> None:
    rng = np.random.default_rng(3)
    x = rng.standard_normal((40, 4))
    one_image = np.zeros(40, dtype=np.int64)
    assert not rfm(x, (x[:, 0] > 0)[None], one_image, seed=0).any()
    held_out = np.arange(40) < 10
    first = top_direction(x, x[:, 0] > 0, held_out)
    # What is held out only chooses.
    x[held_out] *= 1.0001
    assert top_direction(x, x[:, 0] > 0, held_out) == pytest.approx(first, abs=1e-5)


def test_tokens_are_counted_as_they_are_sampled() -> None:
    patches = np.zeros((2, 3, 9), bool)
    patches[0, 0, :2] = patches[1, 1, :8] = True
    selection = Selection(["a", "b"], [5, 6, 7], patches.any(2).T, patches)
    # 2 of an object and 4 of 7 others; 4 of 8 and the one left; 4 of 9.
    assert images_of_tokens(selection, 4).tolist() == [0] * 6 + [1] * 5 + [2] * 4
    words = Selection(["a"], [5, 6], np.ones((2, 1), bool), None)
    assert images_of_tokens(words, 4).tolist() == [0, 1]
