"""Attribute discovery: precision, verification and recall counted by hand."""

from __future__ import annotations

import pytest

from vista.metrics.attributes import Proposal, attribute_discovery

NAN = float("nan")
TRUTH = {"colour": ("blue", "red"), "ground": ("sand", "water")}


def test_figures_by_hand() -> None:
    proposals = [
        Proposal(0, "red", 0.99, gain=0.8, random_gain=0.1),
        Proposal(1, "red", 0.95, gain=0.1, random_gain=0.3),
        Proposal(2, "the", 0.97),
        Proposal(3, "sand", 0.6, gain=0.5, random_gain=0.0),
        Proposal(4, None, NAN),
    ]
    random = [Proposal(5, None, NAN), Proposal(6, "blue", 0.92), Proposal(7, None, NAN)]
    result = attribute_discovery(
        proposals, random, TRUTH, min_auroc=0.9, min_gain=0.3, seed=0, resamples=20, level=0.95
    )
    rows = {row.metric: (row.value, row.chance, row.n) for row in result.rows()}
    assert rows == {
        "discovery_precision": pytest.approx((3 / 5, 1 / 3, 5)),
        "discovery_verified": pytest.approx((3 / 5, 1 / 3, 5)),
        "discovery_precision:verified": pytest.approx((2 / 3, 1, 3)),
        # What no probe knows was not steered.
        "discovery_steered": pytest.approx((2 / 3, 1 / 3, 3)),
        # Red counts once; sand was proposed, but not verified.
        "discovery_recall@colour": pytest.approx((1 / 2, 1 / 2, 2)),
        "discovery_recall@ground": pytest.approx((0, 0, 2)),
        "discovery_recall@all": pytest.approx((1 / 4, 1 / 4, 4)),
    }


def test_nothing_proposed_is_undefined() -> None:
    result = attribute_discovery(
        [], [], TRUTH, min_auroc=0.9, min_gain=0.3, seed=0, resamples=20, level=0.95
    )
    assert result.precision.value is None
    assert result.recall["all"].value == 0
