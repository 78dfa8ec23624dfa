"""Shares of losses that are known for each image."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from vista.metrics.bootstrap import resample_means
from vista.metrics.spliced_loss.measure import KindLoss, KindLosses, kind_figures

TOKENS = [2, 3, 0, 5]
CLEAN = [2.0, 4.0, 9.0, 4.0]  # 10 nats over 10 tokens; the third image has none
SEED, RESAMPLES = 3, 200
DRAWS: dict[str, Any] = {"seed": SEED, "resamples": RESAMPLES, "level": 0.9}


def figures(layers: dict[int, dict[str, list[float]]], times: int = 1, **more: Any) -> KindLoss:
    """The figures of the four images, each `times` times, of losses of four images or of all."""
    columns = {
        layer: {
            name: np.resize(loss, 4 * times) if len(loss) == 4 else np.array(loss)
            for name, loss in part.items()
        }
        for layer, part in layers.items()
    }
    options: dict[str, Any] = {"min_ablation_cost": 0.01, **DRAWS, **more}
    losses = KindLosses(np.tile(TOKENS, times), np.tile(CLEAN, times), columns)
    return kind_figures(losses, "image", **options)


def layer(spliced: list[float], mean: list[float], zero: list[float]) -> dict[str, list[float]]:
    return {"spliced": spliced, "mean": mean, "zero": zero}


HALF = layer([5.0, 6.0, 9.0, 4.0], [6.0, 8.0, 9.0, 6.0], [10.0, 20.0, 9.0, 20.0])
WHOLE = layer([1.0, 4.0, 9.0, 3.0], [6.0, 8.0, 9.0, 6.0], [10.0, 20.0, 9.0, 20.0])


def test_shares_and_cross_entropies_by_hand() -> None:
    found = figures({1: HALF, 0: WHOLE})
    assert (found.n_images, found.n_tokens) == (3, 10)
    value = {(f.metric, f.of, f.layer): f.value for f in found.figures()}
    assert value == {
        ("spliced_cross_entropy", "clean", None): pytest.approx(1.0),
        ("spliced_cross_entropy", "spliced", 0): pytest.approx(0.8),
        ("spliced_cross_entropy", "mean", 0): pytest.approx(2.0),
        ("spliced_cross_entropy", "zero", 0): pytest.approx(5.0),
        ("spliced_cross_entropy", "spliced", 1): pytest.approx(1.5),
        ("spliced_cross_entropy", "mean", 1): pytest.approx(2.0),
        ("spliced_cross_entropy", "zero", 1): pytest.approx(5.0),
        # Better than the stream itself: more than 1 is a value like any other.
        ("spliced_loss_recovered", "mean", 0): pytest.approx((2.0 - 0.8) / (2.0 - 1.0)),
        ("spliced_loss_recovered", "zero", 0): pytest.approx((5.0 - 0.8) / (5.0 - 1.0)),
        ("spliced_loss_recovered", "mean", 1): pytest.approx(0.5),
        ("spliced_loss_recovered", "zero", 1): pytest.approx(3.5 / 4.0),
        ("spliced_loss_recovered", "mean", None): pytest.approx((1.2 + 0.5) / 2),
        ("spliced_loss_recovered", "zero", None): pytest.approx((1.05 + 0.875) / 2),
    }
    assert {(f.token_kind, f.n) for f in found.figures()} == {("image", 3)}
    assert {f.chance for f in found.figures() if f.metric == "spliced_loss_recovered"} == {0.0}


def test_intervals_draw_all_sums_of_an_image_together() -> None:
    # Each image ten times: figures of few images have no interval.
    found = figures({0: HALF}, times=10)
    columns = np.array([[5.0, 6.0, 4.0], [6.0, 8.0, 6.0], [2.0, 4.0, 4.0]]).T
    columns = np.tile(columns, (10, 1))
    spliced, mean, clean = resample_means(columns, SEED, RESAMPLES).T
    drawn = (mean - spliced) / (mean - clean)
    low, high = np.quantile(drawn, [0.05, 0.95], method="nearest")
    share = found.layers[0].recovered["mean"].share
    assert [share.ci_low, share.ci_high] == pytest.approx([low, high])
    assert low < 0.5 < high
    # A reconstruction that costs each image the same share has no other share in any resample.
    tenth = [c + 0.1 * (m - c) for c, m in zip(CLEAN, HALF["mean"], strict=True)]
    part = figures({0: layer(tenth, HALF["mean"], HALF["zero"])}, times=10).layers[0]
    even = part.recovered["mean"].share
    assert [even.ci_low, even.value, even.ci_high] == pytest.approx([0.9] * 3)


def test_an_ablation_that_costs_next_to_nothing_gives_no_share() -> None:
    idle = [c + 0.04 for c in CLEAN]  # .12 nats over 10 tokens
    part = {0: layer([5.0, 6.0, 9.0, 4.0], idle, HALF["zero"]), 1: HALF}
    found = figures(part, min_ablation_cost=0.02)
    share = found.layers[0].recovered["mean"]
    assert share.share.value is None
    assert share.cost == pytest.approx(0.012)
    assert share.undefined is not None
    assert "costs 0.012 nats a token, less than min_ablation_cost (0.02)" in share.undefined
    # The other ablation and the other layer have theirs; a mean over one of two layers would
    # be compared with means over both.
    assert found.layers[0].recovered["zero"].undefined is None
    assert found.layers[1].recovered["mean"].share.value == pytest.approx(0.5)
    over = found.recovered["mean"]
    assert over.share.value is None
    assert over.undefined is not None
    assert over.undefined.startswith("undefined after block 0: ")
    assert found.recovered["zero"].share.value is not None
    assert figures(part).layers[0].recovered["mean"].share.value is not None


def test_an_ablation_that_helps_gives_no_share() -> None:
    better = [c - 1 for c in CLEAN]
    found = figures({0: layer(CLEAN, better, HALF["zero"])})
    assert found.layers[0].recovered["mean"].share.value is None
    assert found.layers[0].recovered["mean"].cost == pytest.approx(-0.3)


def test_a_share_is_unbounded_where_resamples_cost_nothing() -> None:
    """One image of twelve bears all of the cost: without it, in a third of the resamples, nothing
    is divided by, or less than nothing."""
    mean = [*CLEAN * 3, 2.0, 4.0, 9.0, 24.0]
    worse = [2.5, 4.5, 9.0, 4.0]
    share = figures({0: layer(worse, mean, mean)}, times=4).layers[0].recovered["mean"].share
    assert share.value == pytest.approx(16 / 20)
    # (ablated - spliced) is negative there: the share has no lower end.
    assert share.ci_low is None
    assert share.ci_high is not None


def test_without_a_scored_token_nothing_is_defined() -> None:
    empty = KindLosses(np.zeros(0), np.zeros(0), {0: dict.fromkeys(HALF, np.zeros(0))})
    found = kind_figures(empty, "control", min_ablation_cost=0.01, **DRAWS)
    assert found.recovered["mean"].undefined is not None
    assert {(f.value, f.n) for f in found.figures()} == {(None, 0)}
    with pytest.raises(ValueError, match="losses of"):
        figures({0: layer([1.0], [1.0], [1.0])})
