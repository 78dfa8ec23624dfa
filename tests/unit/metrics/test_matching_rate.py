"""Matching rate on planted latents whose match is known exactly."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from vista.config.metrics import MaskBounds
from vista.judges import load_judge
from vista.metrics.matching_rate.measure import (
    LayerInput,
    MatchingResult,
    matching_rate,
    object_scores,
)
from vista.metrics.matching_rate.scores import Scores, TopK
from vista.metrics.object_names import noun_latents
from vista.metrics.ranking import LatentMask, Ranked

LABELS = ["cat", "dogs", "grass", None, "", "category", "umbrella", "red"]
CAT, DOG, GRASS, UNLABELLED, BLANK, CATEGORY, UMBRELLA, RED = range(8)


def layer(
    latents: list[list[int]], labels: list[str | None] | None = None, width: int = 3
) -> LayerInput:
    latent = np.full((len(latents), width), -1)
    for b, row in enumerate(latents):
        latent[b, : len(row)] = row
    ranked = Ranked(latent, np.where(latent < 0, -1, 0), (latent >= 0).astype(float))
    names = LABELS if labels is None else labels
    return LayerInput(ranked, names, LatentMask(*np.zeros((3, len(names)), bool)))


def measure(
    layers: dict[int, LayerInput],
    objects: list[list[str]],
    ks: tuple[int, ...] = (1, 3),
    groups: list[str | None] | None = None,
) -> tuple[MatchingResult, Scores]:
    settings: dict[str, Any] = {
        "judge_name": "lexical",
        "top_k": 3,
        "bounds": MaskBounds(0.05, 0.005),
        "mask_images": "evaluated",
        "n_mask_images": 4,
        "n_without_objects": 0,
        "seed": 0,
        "resamples": 200,
        "level": 0.95,
    }
    scores = object_scores(layers, objects, load_judge("lexical").judge, ks, groups or ())
    return matching_rate(layers, scores, ks=ks, **settings), scores


def top(result: MatchingResult, k: int, position: int = 0) -> TopK:
    return next(each for each in result.layers[position].top if each.k == k)


def test_latents_of_nouns_that_the_masks_hide_are_counted() -> None:
    labels = ["Cat", "dogs", "category", "hot dog", None, "tree"]
    nouns = ["cat", "dog", "hot dog"]
    assert noun_latents(labels, nouns).tolist() == [True, True, False, True, False, False]
    masked = np.array([False, True, True, True, False, False])
    unlabelled = np.array([label is None for label in labels])
    mask = LatentMask(masked, np.zeros(6, bool), unlabelled)
    entry = LayerInput(layer([[0]], labels).ranked, labels, mask)
    scores = object_scores({0: entry}, [["cat"]], load_judge("lexical").judge, (1,))
    result = matching_rate(
        {0: entry},
        scores,
        judge_name="lexical",
        top_k=1,
        ks=(1,),
        bounds=MaskBounds(0.05, 0.005),
        mask_images="evaluated",
        n_mask_images=1,
        n_without_objects=0,
        nouns=nouns,
        seed=0,
        resamples=20,
        level=0.95,
    )
    (row,) = [row for row in result.figures() if row.metric == "masked_noun_latents"]
    assert (row.value, row.n, row.layer) == (pytest.approx(2 / 3), 3, 0)


def test_known_matches_and_recall() -> None:
    latents = [[CAT, RED, DOG], [GRASS, UMBRELLA, CAT], [CATEGORY, RED], [DOG]]
    objects = [["cat", "dog"], ["umbrella", "dog"], ["cat"], ["dog"]]
    result, scores = measure({0: layer(latents)}, objects)
    assert scores.layers[0].matching[1].own_b.tolist() == [1, 0, 0, 1]
    assert scores.layers[0].matching[3].own_b.tolist() == [1, 1, 0, 1]
    assert scores.layers[0].named_bn.tolist() == [[1, 0, 1], [0, 1, 0], [0, 0, 0], [1, 0, 0]]
    assert top(result, 1).matching.value == 0.5
    assert top(result, 3).matching.value == 0.75
    recall = top(result, 3).recall
    assert recall is not None and recall.value == pytest.approx((1 + 0.5 + 0 + 1) / 4)
    # By hand, top 3 named {cat, dog}, {umbrella, cat}, {}, {dog} against the others' objects.
    assert top(result, 3).matching.chance == pytest.approx((3 + 2 + 0 + 2) / 12)
    assert top(result, 3).gain.value == pytest.approx(0.75 - 7 / 12)
    assert top(result, 3).ratio.value == pytest.approx(0.75 * 12 / 7)


def test_labels_of_grounds_and_colours_match_nothing() -> None:
    result, _ = measure({0: layer([[GRASS, RED]] * 4)}, [["cat"], ["dog"], ["cat"], ["umbrella"]])
    assert top(result, 3).matching.value == 0.0
    assert top(result, 3).matching.chance == 0.0
    assert top(result, 3).ratio.value is None


def test_missing_empty_and_unlabelled_latents_cannot_match() -> None:
    # -1 indexes the last label in Python: it must not speak for a silent image.
    labels = [*LABELS[:-1], "cat"]
    latents: list[list[int]] = [[], [UNLABELLED], [BLANK], [UNLABELLED, BLANK]]
    result, _ = measure({0: layer(latents, labels)}, [["cat"]] * 4)
    assert top(result, 3).matching.value == 0.0
    assert result.layers[0].silent_images.value == 0.25


def test_each_layer_is_judged_by_its_own_labels() -> None:
    latents = [[0], [0]]
    layers = {
        4: layer(latents, ["dog", "cat"]),
        1: layer(latents, ["cat", "dog"]),
    }
    result, _ = measure(layers, [["cat"], ["cat"]])
    assert [part.layer for part in result.layers] == [1, 4]
    assert top(result, 1, 0).matching.value == 1.0
    assert top(result, 1, 1).matching.value == 0.0
    assert result.over_layers[0].matching.value == 0.5


def test_labels_of_another_dictionary_are_refused() -> None:
    given = layer([[0]])
    wrong = LayerInput(given.ranked, ["cat"], given.mask)
    with pytest.raises(ValueError, match="another dictionary"):
        measure({0: wrong}, [["cat"]])


def test_a_ranking_shorter_than_k_is_refused() -> None:
    with pytest.raises(ValueError, match="does not fit"):
        measure({0: layer([[0]], width=2)}, [["cat"]])


def test_independent_labels_show_no_gain() -> None:
    rng = np.random.default_rng(0)
    names = ["cat", "dog", "umbrella", "bus", "cow", "cup", "horse", "kite"]
    latents = [rng.permutation(8)[:3].tolist() for _ in range(600)]
    objects = [[names[c] for c in rng.permutation(8)[: rng.integers(1, 4)]] for _ in range(600)]
    result, _ = measure({0: layer(latents, list(names))}, objects)
    figures = top(result, 3)
    assert figures.matching.value is not None
    assert figures.matching.value > 0.3  # high, and worth nothing
    assert figures.gain.ci_low is not None
    assert figures.gain.ci_high is not None
    assert figures.gain.ci_low < 0 < figures.gain.ci_high
    assert figures.ratio.value == pytest.approx(1.0, abs=0.12)


def test_naming_everything_everywhere_gains_nothing() -> None:
    objects = [["cat"], ["dog"], ["umbrella"], ["cat", "dog"]]
    result, _ = measure({0: layer([[CAT, DOG, UMBRELLA]] * 4)}, objects)
    assert top(result, 3).matching.value == 1.0
    assert top(result, 3).matching.chance == 1.0
    assert top(result, 3).gain.value == 0.0
    assert top(result, 3).ratio.value == 1.0


def test_repeated_objects_count_once() -> None:
    result, _ = measure({0: layer([[CAT], [DOG]])}, [["cat", "cat", "dog"], ["dog"]])
    recall = top(result, 1).recall
    assert recall is not None and recall.value == pytest.approx(0.75)


def test_rows_carry_level_and_n() -> None:
    result, _ = measure({2: layer([[CAT], [DOG]])}, [["cat"], ["dog"]])
    rows = {(row.metric, row.k, row.layer): row for row in result.figures()}
    assert rows["matching_rate", 3, 2].value == 1.0
    assert rows["matching_rate", 3, 2].chance == 0.0
    assert rows["matching_rate", 3, 2].n == 2
    assert rows["matching_rate", 3, None].token_kind == "image"
    assert rows["eligible_latents", None, 2].n == len(LABELS)
    assert ("masked_noun_latents", None, 2) not in rows
    assert len(rows) == len(result.figures())


def test_no_images_leaves_figures_undefined() -> None:
    result, _ = measure({0: layer([])}, [])
    assert top(result, 3).matching.value is None
    assert top(result, 3).matching.n == 0


def test_groups_have_the_figures_without_masks_too() -> None:
    """Those of a run on the group's images alone."""
    objects = [["cat"], ["dog"], ["cat"], ["dog"], ["cat"]]
    masked, free = [[CAT], [], [CAT], [], []], [[CAT], [DOG], [GRASS], [UMBRELLA], [CAT]]
    groups = ["a", "a", "b", "b", None]
    judge, ks = load_judge("lexical").judge, (1, 3)
    scores = [object_scores({0: layer(x)}, objects, judge, ks, groups) for x in (masked, free)]
    result = matching_rate(
        {0: layer(masked)},
        scores[0],
        judge_name="lexical",
        top_k=3,
        ks=ks,
        bounds=MaskBounds(0.05, 0.005),
        mask_images="evaluated",
        n_mask_images=5,
        n_without_objects=0,
        without={"unmasked": scores[1]},
        seed=0,
        resamples=200,
        level=0.95,
    )
    rates = {
        (row.set, row.of): (row.value, row.n)
        for row in result.figures()
        if row.metric == "matching_rate" and row.k == 3 and row.set is not None
    }
    assert rates == {
        ("a", None): (0.5, 2),
        ("a", "unmasked"): (1.0, 2),
        ("b", None): (0.5, 2),
        ("b", "unmasked"): (0.0, 2),
    }
    for name, part in (("a", slice(0, 2)), ("b", slice(2, 4))):
        alone, _ = measure({0: layer(free[part])}, objects[part])
        assert result.groups[name].without["unmasked"] == alone.over_layers


def test_groups_are_judged_apart_against_their_own_images() -> None:
    latents = [[CAT], [DOG], [CAT], [UMBRELLA], [CAT]]
    objects = [["cat"], ["dog"], ["cat"], ["dog"], ["cat"]]
    layers = {0: layer(latents), 1: layer([[GRASS]] * 5)}
    whole, _ = measure(layers, objects)
    result, _ = measure(layers, objects, groups=["a", "a", "b", "b", None])
    assert result.layers == whole.layers
    assert result.over_layers == whole.over_layers
    assert "groups" not in whole.model_dump_json()
    assert list(result.groups) == ["a", "b"]
    # Layer 0 matches both images of a and one of b, layer 1 none.
    a, b = (result.groups[name].over_layers[0] for name in ("a", "b"))
    assert (a.matching.value, a.matching.n) == (0.5, 2)
    assert b.matching.value == 0.25
    # cat against the dog's image and dog against the cat's; then umbrella and cat.
    assert (a.matching.chance, b.matching.chance) == (0.0, 0.0)
    rates = [row for row in result.figures() if row.metric == "matching_rate"]
    assert [(row.k, row.layer, row.set) for row in rates[-4:]] == [
        (1, None, "a"),
        (3, None, "a"),
        (1, None, "b"),
        (3, None, "b"),
    ]
