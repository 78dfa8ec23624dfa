"""Attribute discovery: precision, verification and recall counted by hand."""

from __future__ import annotations

from typing import Any

import pytest

from vista.metrics.discovery import Proposal, attribute_discovery

NAN = float("nan")
TRUTH = {"colour": ("blue", "red"), "ground": ("sand", "water")}


def figures(proposals: list[Proposal], random: list[Proposal]) -> dict[Any, Any]:
    result = attribute_discovery(
        proposals,
        random,
        TRUTH,
        min_auroc=0.9,
        min_gain=0.3,
        max_random=0.5,
        level=0.95,
    )
    return {
        row.metric if row.set is None else (row.metric, row.set): (row.value, row.chance, row.n)
        for row in result.figures()
    }


PROPOSALS = [
    Proposal(0, "red", 0.99, 5.0, 1.0, gain=0.8, random_gain=0.1),
    Proposal(1, "red", 0.95, 1.9, 2.0, gain=0.1, random_gain=0.3),
    Proposal(2, "the", 0.97, 0.5, 3.0),
    Proposal(3, "sand", 0.6, 2.1, 1.0, gain=0.5, random_gain=0.0),
    Proposal(4, None, NAN, 9.0, 9.0),
]
RANDOM = [Proposal(5, None, NAN), Proposal(6, "blue", 0.92, 1.0), Proposal(7, None, NAN, 8.0)]


def test_figures_by_hand() -> None:
    assert figures(PROPOSALS, RANDOM) == {
        "discovery_precision": pytest.approx((3 / 5, 1 / 3, 5)),
        "discovery_verified": pytest.approx((3 / 5, 1 / 3, 5)),
        "discovery_verified_precision": pytest.approx((2 / 3, 1, 3)),
        "discovery_correct": pytest.approx((2 / 5, 1 / 3, 5)),
        # More than random directions do in the median, 2. What prompts alone tell ("the") and what
        # images do not show falls here, what has no name does not.
        "discovery_changing": pytest.approx((3 / 5, 1 / 3, 5)),
        "discovery_changing_precision": pytest.approx((2 / 3, 0, 3)),
        # What no probe knows has no gain.
        "discovery_steered": pytest.approx((2 / 3, 1 / 3, 3)),
        ("discovery_recall", "colour"): pytest.approx((1 / 2, 0, 2)),
        ("discovery_recall", "ground"): pytest.approx((1 / 2, 0, 2)),
        ("discovery_recall", "all"): pytest.approx((2 / 4, 0, 4)),
    }


def test_without_images_held_out_prompts_verify() -> None:
    proposals, random = (
        [Proposal(each.latent, each.name, each.auroc) for each in part]
        for part in (PROPOSALS, RANDOM)
    )
    found = figures(proposals, random)
    assert not {"discovery_changing", "discovery_changing_precision", "discovery_steered"} & set(
        found
    )
    # Red counts once; sand was proposed, but not verified.
    assert found["discovery_recall", "colour"] == pytest.approx((1 / 2, 1 / 2, 2))
    assert found["discovery_recall", "ground"] == pytest.approx((0, 0, 2))


def test_nothing_proposed_is_undefined() -> None:
    found = figures([], [])
    assert found["discovery_precision"][0] is None
    assert found["discovery_recall", "all"][0] == 0
