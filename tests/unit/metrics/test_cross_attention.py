"""Figures of gated cross-attention: both positions of a word, and what captions cost."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from vista.metrics.cross_attention.measure import CrossAttentionResult, cross_attention_result
from vista.metrics.grounding_attention.maps import Readings, map_values, other_regions
from vista.metrics.grounding_attention.measure import (
    GroundingAttentionResult,
    Measured,
    Words,
    caption_scores,
    grounding_attention,
)
from vista.metrics.result import Estimate

N = 200
DRAWS: dict[str, Any] = {"seed": 0, "resamples": 200, "level": 0.95}


def attention(nats_b: Any) -> GroundingAttentionResult:
    """Attention of one head on the object at the word, and spread evenly before it."""
    region_ip = np.eye(4, dtype=bool)[np.arange(N) % 4]
    image_i, readings = np.arange(N), Readings(1, 1)
    others = other_regions(region_ip, image_i)
    values: Any = {
        position: map_values(readings.of(maps_ip[:, None, None]), region_ip, others)
        for position, maps_ip in (("word", region_ip), ("before", np.full((N, 4), 0.25)))
    }
    even: Any = {position: np.zeros(N) for position in values}
    words = Words(image_i, region_ip.mean(axis=1), values, even)
    measured = Measured(words, caption_scores(values, image_i, nats_b), None)
    return grounding_attention(readings, measured, measured, region="mask", **DRAWS)


@pytest.fixture(scope="module")
def result() -> CrossAttentionResult:
    """Captions that differ much, and two trainings that differ by .1 of each."""
    rng = np.random.default_rng(0)
    first_b = rng.uniform(0.5, 3.5, N)
    nats = {0.0: first_b, 0.5: first_b + 0.1 + rng.normal(0, 0.01, N)}
    trainings = [(weight, {0: 0.2}, attention(nats_b), nats_b) for weight, nats_b in nats.items()]
    return cross_attention_result(trainings, first_b + 1, **DRAWS)


def width(value: Estimate) -> float:
    assert value.ci_low is not None
    assert value.ci_high is not None
    return value.ci_high - value.ci_low


def test_the_cost_is_paired_over_captions(result: CrossAttentionResult) -> None:
    first, second = result.trained
    assert first.cost is None
    assert second.cost is not None
    assert second.cost.value == pytest.approx(0.1, abs=0.003)
    assert second.cost.n == N
    # Captions differ much more than the difference of one: unpaired, the interval would hold 0.
    assert width(second.cost) < 0.005
    assert width(second.attention.cross_entropy) > 0.2
    assert result.without_image_cost.value == pytest.approx(1)
    assert width(result.without_image_cost) == pytest.approx(0, abs=1e-9)


def test_the_figures_tell_weights_and_positions_apart(result: CrossAttentionResult) -> None:
    figures = result.figures()
    assert len({figure.key for figure in figures}) == len(figures)
    found = {
        (figure.method, figure.of, figure.metric.removeprefix("cross_attention_")): figure.value
        for figure in figures
        if figure.set is None
    }
    for weight in ("0", "0.5"):
        at_word, before = ((weight, position) for position in ("word", "before"))
        assert found[*at_word, "on_object"] == found[*at_word, "auroc"] == 1
        assert found[*at_word, "pointing"] == 1
        assert found[*before, "on_object"] == found[*before, "pointing"] == 0.25
        assert found[*before, "auroc"] == 0.5
    costs = {method for method, _, name in found if name == "cost"}
    assert costs == {"0.5", "without_image"}
    assert {m for m, _, name in found if name == "cross_entropy"} == {"0", *costs}
