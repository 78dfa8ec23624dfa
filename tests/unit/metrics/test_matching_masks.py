"""The matching rate without its masks, by the bound of one, and what the masks hide."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from vista.config.metrics import MaskBounds, Without
from vista.judges import load_judge
from vista.metrics.figure import Figure
from vista.metrics.matching_rate import MatchingSettings
from vista.metrics.matching_rate.masks import hidden_latents
from vista.metrics.matching_rate.measure import (
    LayerInput,
    MatchingResult,
    matching_rate,
    object_scores,
)
from vista.metrics.matching_rate.scores import Scores
from vista.metrics.ranking import LatentMask, Ranked

LABELS = ["cat", "dog", "grass"]
CAT, DOG, GRASS = range(3)
OBJECTS = [["cat"], ["dog"], ["cat"], ["dog"]]
DRAWS = (0, 200, 0.95)


def layers(*latents: list[list[int]]) -> dict[int, LayerInput]:
    """A layer for each ranking; none of their latents is masked."""
    inputs = {}
    for layer, rows in enumerate(latents):
        latent = np.full((len(rows), 2), -1)
        for b, row in enumerate(rows):
            latent[b, : len(row)] = row
        ranked = Ranked(latent, np.where(latent < 0, -1, 0), (latent >= 0).astype(float))
        inputs[layer] = LayerInput(ranked, LABELS, LatentMask(*np.zeros((3, 3), bool)))
    return inputs


def judged(inputs: dict[int, LayerInput]) -> Scores:
    objects = OBJECTS * (len(inputs[0].ranked) // len(OBJECTS))
    return object_scores(inputs, objects, load_judge("lexical").judge, (1, 2))


def measure(
    masked: dict[int, LayerInput],
    without: dict[Without, dict[int, LayerInput]],
    curve: dict[float, dict[int, LayerInput]],
) -> MatchingResult:
    return matching_rate(
        masked,
        judged(masked),
        judge_name="lexical",
        top_k=2,
        ks=(1, 2),
        bounds=MaskBounds(0.05, 0.005),
        mask_images="validation",
        n_mask_images=7,
        n_without_objects=0,
        without={name: judged(inputs) for name, inputs in without.items()},
        curve={bound: judged(inputs) for bound, inputs in curve.items()},
        seed=0,
        resamples=200,
        level=0.95,
    )


def rows(result: MatchingResult, metric: str, **columns: Any) -> list[Figure]:
    return [
        row
        for row in result.figures()
        if row.metric == metric and all(getattr(row, c) == v for c, v in columns.items())
    ]


MASKED_ROWS: list[list[list[int]]] = [[[CAT], [], [], []], [[], [], [], [DOG]]]
FREE_ROWS = [[[CAT], [DOG], [GRASS, CAT], [CAT]], [[GRASS], [GRASS], [CAT], [DOG]]]
MASKED, FREE = layers(*MASKED_ROWS), layers(*FREE_ROWS)


def test_figures_without_masks_stand_beside_the_headline() -> None:
    result = measure(MASKED, {"no_frequency_mask": FREE, "unmasked": FREE}, {})
    rates = {(row.of, row.layer): row.value for row in rows(result, "matching_rate", k=2)}
    assert rates == {
        (None, 0): 0.25,
        (None, 1): 0.25,
        (None, None): 0.25,
        **dict.fromkeys([("no_frequency_mask", 0), ("unmasked", 0)], 0.75),
        **dict.fromkeys([("no_frequency_mask", 1), ("unmasked", 1)], 0.5),
        **dict.fromkeys([("no_frequency_mask", None), ("unmasked", None)], 0.625),
    }
    # At k = 1 the third image's cat is second to grass.
    (one,) = rows(result, "matching_rate", k=1, layer=0, of="unmasked")
    assert one.value == 0.5
    # Images 0 and 2 show a cat: its label in images 0, 2 and 3 of the first layer, by hand.
    (gain,) = rows(result, "matching_gain", k=2, layer=0, of="unmasked")
    assert gain.value == pytest.approx(0.75 - (1 + 1 + 1 + 2) / 12)
    alone = measure(FREE, {}, {})
    for metric in ("matching_rate", "matching_gain", "matching_ratio", "object_recall"):
        (beside,) = rows(result, metric, k=2, layer=None, of="unmasked")
        (whole,) = rows(alone, metric, k=2, layer=None, of=None)
        assert (beside.value, beside.ci_low, beside.ci_high, beside.chance, beside.n) == (
            whole.value,
            whole.ci_low,
            whole.ci_high,
            whole.chance,
            whole.n,
        )


def test_the_difference_to_the_masked_rate_is_paired() -> None:
    # Each image ten times: figures of few images have no interval.
    masked, free = (layers(*(rows * 10 for rows in of)) for of in (MASKED_ROWS, FREE_ROWS))
    result = measure(masked, {"unmasked": free, "no_density_mask": masked}, {})
    (gap,) = rows(result, "matching_mask_difference", of="unmasked", k=2)
    assert gap.value == pytest.approx(0.625 - 0.25)
    assert gap.n == 40
    # Image by image, mean over both layers: 0, .5, 1, 0 more matches.
    assert gap.ci_low is not None
    assert gap.ci_high is not None
    assert 0.0 <= gap.ci_low < gap.value < gap.ci_high <= 1.0
    (same,) = rows(result, "matching_mask_difference", of="no_density_mask", k=2)
    assert (same.value, same.ci_low, same.ci_high) == (0.0, 0.0, 0.0)


def test_the_curve_has_a_point_for_each_bound_and_its_shuffled_level() -> None:
    result = measure(MASKED, {}, {1.0: FREE, 0.05: MASKED})
    points = rows(result, "matching_by_mask", layer=None)
    assert [(row.of, row.value, row.k) for row in points] == [("0.05", 0.25, 2), ("1", 0.625, 2)]
    (masked,) = rows(result, "matching_rate", of=None, k=2, layer=None)
    assert (points[0].value, points[0].chance) == (masked.value, masked.chance)
    by_layer = rows(result, "matching_by_mask", of="1")
    assert {row.layer: row.value for row in by_layer} == {0: 0.75, 1: 0.5, None: 0.625}
    (gain,) = rows(result, "matching_gain_by_mask", of="1", layer=None)
    assert points[1].value is not None
    assert points[1].chance is not None
    assert gain.value == pytest.approx(points[1].value - points[1].chance)
    assert all(row.set is None for row in result.figures()), "groups of images have this column"


def test_what_masks_hide_of_latents_and_of_activation() -> None:
    # Five latents: one frequent, one dense, one both, one without a label, one that is ranked; and
    # one, frequent, that fires on validation images alone.
    mask = LatentMask(
        np.array([True, False, True, False, False, True]),
        np.array([False, True, True, False, False, False]),
        np.array([False, False, False, True, False, False]),
    )
    fires = np.array([True, True, True, True, True, False])
    # Of each image: all activation, then of frequent, dense, masked and unlabelled latents.
    activation = np.array([[10.0, 6, 3, 7, 1], [30.0, 10, 5, 13, 9], [0.0, 0, 0, 0, 0]])
    parts = {part.by: part for part in hidden_latents(mask, fires, activation, DRAWS)}
    assert {by: part.latents.value for by, part in parts.items()} == {
        "frequency": 0.4,
        "density": 0.4,
        None: 0.6,
        "unlabelled": 0.2,
    }
    assert parts[None].latents.n == 5
    shares = {by: part.activation.value for by, part in parts.items()}
    expected = {"frequency": 0.4, "density": 0.2, None: 0.5, "unlabelled": 0.25}
    assert shares == pytest.approx(expected)
    assert parts[None].activation.n == 2
    assert parts["frequency"].activation.ci_low is None  # two images are too few
    many = {
        part.by: part for part in hidden_latents(mask, fires, np.tile(activation, (9, 1)), DRAWS)
    }
    low, high = many["frequency"].activation.ci_low, many["frequency"].activation.ci_high
    assert low is not None
    assert high is not None
    # Half of the images hide 6 / 10, the others 10 / 30.
    assert 1 / 3 < low < 0.4 < high < 0.6
    figures = [row for part in parts.values() for row in part.figures(4)]
    assert {(row.metric, row.of, row.layer) for row in figures} >= {
        ("masked_latents", "frequency", 4),
        ("masked_activation", None, 4),
    }


def test_nothing_that_fires_has_no_share() -> None:
    mask = LatentMask(*np.zeros((3, 2), bool))
    for part in hidden_latents(mask, np.zeros(2, bool), np.zeros((3, 5)), DRAWS):
        assert (part.latents.value, part.activation.value) == (None, None)


def test_bounds_of_the_curve_and_of_the_figures_without_masks() -> None:
    settings = MatchingSettings.model_validate({"mask": {"max_image_share": 0.1}})
    assert settings.without_bounds == {
        "no_frequency_mask": (1.0, 0.005),
        "no_density_mask": (0.1, 1.0),
        "unmasked": (1.0, 1.0),
    }
    assert settings.curve_bounds[0.3] == (0.3, 0.005)
    judge = {"kind": "api", "base_url": "http://127.0.0.1:1/v1", "model": "m"}
    looking = MatchingSettings.model_validate({"evidence": "image", "judge": judge})
    assert looking.curve_bounds == {}
    for wrong in ({"mask_curve": [0.0]}, {"mask_curve": [0.1, 0.1]}, {"mask_curve": [1.5]}):
        with pytest.raises(ValueError, match="mask_curve"):
            MatchingSettings.model_validate(wrong)
    with pytest.raises(ValueError, match="named twice"):
        MatchingSettings.model_validate({"without_masks": ["unmasked", "unmasked"]})
    assert "mask_curve" not in MatchingSettings().model_dump(mode="json")
