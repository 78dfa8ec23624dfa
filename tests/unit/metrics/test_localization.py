"""Localization on planted maps whose hits and scores are known exactly."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, roc_auc_score

from vista.judges import load_judge
from vista.metrics.localization.measure import (
    LayerMaps,
    LocalizationResult,
    localization,
    own_latents,
)
from vista.metrics.localization.pointing import Target, scaled_limits
from vista.metrics.patch_scores import map_scores
from vista.metrics.ranking import Ranked

N_PATCHES = 9
LABELS = ["cat", "dogs", "category", None, "grass", "a photo of cats"]


def patches(*positions: int) -> NDArray[np.bool_]:
    where = np.zeros(N_PATCHES, dtype=bool)
    where[list(positions)] = True
    return where


def maps(
    players: list[list[tuple[int, int]]],
    activation: dict[tuple[int, int], NDArray[np.float64]] | None = None,
    own: dict[str, int] | None = None,
    unmasked: list[list[tuple[int, int]]] | None = None,
    salient: list[int] | None = None,
) -> LayerMaps:
    """Build a layer from (latent, strongest token) pairs an image, with and without masks, the
    tokens with the largest norm, and planted maps."""
    given = activation or {}
    return LayerMaps(
        ranking(players),
        LABELS,
        own or {},
        lambda b, s: given.get((b, s), np.zeros(N_PATCHES)),
        ranking(players if unmasked is None else unmasked),
        np.array([0] * len(players) if salient is None else salient),
    )


def ranking(players: list[list[tuple[int, int]]]) -> Ranked:
    latent, token = np.full((len(players), 3), -1), np.full((len(players), 3), -1)
    for b, row in enumerate(players):
        for n, (s, t) in enumerate(row):
            latent[b, n], token[b, n] = s, t
    return Ranked(latent, token, np.zeros(latent.shape))


def measure(
    layers: dict[int, LayerMaps], targets: list[Target], **changed: Any
) -> LocalizationResult:
    settings: dict[str, Any] = {
        "judge_name": "whole_word",
        "n_images": 4,
        "n_patches": N_PATCHES,
        "min_patches": 1,
        "max_patches": 8,
        "mask_images": "evaluated",
        "n_mask_images": 4,
        "permutations": 20,
        "seed": 0,
        "resamples": 200,
        "level": 0.95,
    }
    judge = load_judge("whole_word").judge
    result, plays = localization(layers, targets, judge, **(settings | changed))
    assert len(plays) == result.over_layers.pointing.n
    return result


def test_pointing_game_hits_and_chance() -> None:
    targets = [
        Target(0, "cat", patches(0, 1, 2), None),
        Target(0, "dog", patches(8), None),
        Target(1, "cat", patches(3, 4), None),
        Target(2, "dog", patches(0), None),
    ]
    # Image 0: cat hits, dog misses. Image 1: two latents say cat, one hits. Image 2: a latent
    # of an absent class plays no part. Image 3 has nothing.
    players = [[(0, 1), (1, 0)], [(0, 4), (5, 8)], [(0, 0)], []]
    result = measure({0: maps(players)}, targets)
    pointing = result.layers[0].pointing
    assert pointing.n == 4
    assert pointing.value == 0.5
    assert pointing.chance == pytest.approx((3 / 9 + 1 / 9 + 2 / 9 + 2 / 9) / 4)
    assert result.layers[0].pointing_gain.value == pytest.approx(0.5 - 8 / 36)
    assert result.layers[0].n_pointing_images == 2


def test_only_the_class_word_plays() -> None:
    targets = [Target(0, "cat", patches(0), None)]
    assert measure({0: maps([[(2, 0)], [], [], []])}, targets).layers[0].pointing.n == 0
    assert measure({0: maps([[(3, 0), (4, 0)], [], [], []])}, targets).layers[0].pointing.n == 0
    assert measure({0: maps([[(5, 0)], [], [], []])}, targets).layers[0].pointing.value == 1.0
    puppies = [Target(0, "dog", patches(0), None)]
    assert measure({0: maps([[(1, 0)], [], [], []])}, puppies).layers[0].pointing.n == 1


def test_size_limits_are_inclusive() -> None:
    targets = [
        Target(0, "cat", patches(0), None),
        Target(1, "cat", patches(0, 1), None),
        Target(2, "cat", patches(*range(5)), None),
        Target(3, "cat", patches(*range(6)), None),
    ]
    result = measure({0: maps([[(0, 0)]] * 4)}, targets, min_patches=2, max_patches=5)
    assert result.layers[0].pointing.n == 2
    assert (result.n_targets, result.n_targets_in_limits) == (4, 2)


def test_size_limits_are_on_each_box_and_not_on_their_union() -> None:
    small, fits, other = patches(0), patches(3, 4), patches(6, 7)
    targets = [
        # The union of two boxes is too large, each fits: the class plays with both.
        Target(0, "cat", fits | other, None, np.stack([fits, other])),
        # One box is too small: the class plays with the other alone, and misses it.
        Target(1, "cat", small | fits, None, np.stack([small, fits])),
        # No box fits, though the union does.
        Target(2, "cat", small | patches(8), None, np.stack([small, patches(8)])),
    ]
    layer = maps([[(0, 7)], [(0, 0)], [(0, 8)], []])
    result = measure({0: layer}, targets, min_patches=2, max_patches=3)
    assert (result.n_targets, result.n_targets_in_limits) == (3, 2)
    game = result.layers[0].pointing
    assert (game.value, game.n) == (0.5, 2)
    assert game.chance == pytest.approx((4 / 9 + 2 / 9) / 2)


def test_the_most_salient_token_plays_the_same_turns() -> None:
    targets = [Target(b, "cat", patches(0, 1), None) for b in range(4)]
    # Latents hit in three of four turns, the most salient token in two: in image 1 it alone.
    players = [[(0, 1)], [(0, 5)], [(0, 0)], [(0, 0)]]
    layer = maps(players, salient=[0, 1, 8, 7])
    result = measure({0: layer, 1: layer}, targets)
    for part in (*result.layers, result.over_layers):
        assert (part.pointing.value, part.pointing_salient.value) == (0.75, 0.5)
        assert part.pointing_salient_gain.value == pytest.approx(0.25)
        assert part.pointing_salient.chance == part.pointing.chance == pytest.approx(2 / 9)
        assert part.pointing_salient.n == part.pointing.n
    rows = {row.metric: row for row in result.over_layers.figures() if row.of is None}
    assert (rows["pointing_salient"].value, rows["pointing_salient"].n) == (0.5, 8)
    assert rows["pointing_salient_gain"].ci_low is None  # four images are too few


def test_the_game_without_masks_stands_beside_that_with_both() -> None:
    targets = [Target(0, "cat", patches(0), None), Target(1, "cat", patches(0), None)]
    layer = maps([[(0, 0)], [], [], []], unmasked=[[(0, 0)], [(0, 4)], [], []])
    result = measure({0: layer}, targets)
    rows = {row.of: (row.value, row.n) for row in result.figures() if row.metric == "pointing_game"}
    assert rows == {None: (1.0, 1), "unmasked": (0.5, 2)}


def test_published_limits_on_other_grids() -> None:
    assert scaled_limits(5, 200, 256) == (5, 200)
    assert scaled_limits(5, 200, 36) == (1, 28)
    assert scaled_limits(5, 200, 1024) == (20, 800)
    assert scaled_limits(0, 200, 4) == (1, 3)


def test_random_pointing_stays_at_chance() -> None:
    rng = np.random.default_rng(0)
    targets, players = [], []
    for b in range(800):
        targets.append(Target(b, "cat", rng.random(N_PATCHES) < 0.4, None))
        players.append([(0, int(rng.integers(N_PATCHES)))])
    result = measure({0: maps(players)}, targets, n_images=800, min_patches=1, max_patches=9)
    gain = result.layers[0].pointing_gain
    assert gain.ci_low is not None
    assert gain.ci_high is not None
    assert gain.ci_low < 0 < gain.ci_high


def test_maps_score_every_pair_with_a_named_latent_also_silent_ones() -> None:
    targets = [
        Target(0, "cat", patches(0, 1, 2), patches(0, 1)),
        Target(1, "cat", patches(0, 1, 2), None),
        Target(1, "dog", patches(4), patches(4)),
    ]
    perfect = np.where(patches(0, 1, 2), [3.0, 2, 1, 0, 0, 0, 0, 0, 0], 0.0)
    layer = maps([[], [], [], []], {(0, 0): perfect}, own={"cat": 0})
    box, mask = measure({0: layer}, targets).layers[0].maps
    assert (box.truth, mask.truth) == ("box", "mask")
    # One perfect map, one silent one; the dog has no latent and does not count.
    assert box.auroc.n == 2
    assert box.auroc.value == pytest.approx((1.0 + 0.5) / 2)
    assert box.average_precision.value == pytest.approx((1.0 + 3 / 9) / 2)
    assert box.iou_active.value == pytest.approx(0.5)
    assert mask.auroc.n == 1
    assert mask.iou_active.value == pytest.approx(2 / 3)
    assert mask.iou_best.value == pytest.approx(1.0)


def test_a_class_that_fills_the_image_cannot_be_scored() -> None:
    targets = [Target(0, "cat", np.ones(N_PATCHES, bool), np.zeros(N_PATCHES, bool))]
    layer = maps([[], [], [], []], own={"cat": 0})
    for figures in measure({0: layer}, targets).layers[0].maps:
        assert figures.auroc.n == 0
        assert figures.auroc.value is None


def test_layers_are_pooled_by_pairs() -> None:
    targets = [Target(0, "cat", patches(0), None)]
    layers = {0: maps([[(0, 0)], [], [], []]), 1: maps([[(0, 1), (5, 2)], [], [], []])}
    result = measure(layers, targets)
    assert result.over_layers.layer is None
    assert result.over_layers.pointing.n == 3
    assert result.over_layers.pointing.value == pytest.approx(1 / 3)


def test_own_latents_are_chosen_by_share_then_number() -> None:
    judge = load_judge("whole_word").judge
    labels = ["cat", "cats", "cat", "dog", None, "category"]
    share = np.array([0.5, 0.9, 0.9, np.nan, 1.0, 1.0])
    assert own_latents(labels, share, ["cat", "dog", "cow"], judge) == {"cat": 1, "dog": 3}


def test_of_sentences_with_equal_shares_the_shortest_names_the_class() -> None:
    judge = load_judge("whole_word").judge
    labels = ["a dog that chases a cat", "mentions of a cat", " a  dog ", "the word cat", None]
    own = own_latents(labels, np.array([1.0, 1.0, 1.0, 1.0, 0.0]), ["cat", "dog"], judge)
    assert own == {"cat": 3, "dog": 2}
    # A measured share counts before the length.
    assert own_latents(labels, np.array([1.0, 0.9, 0.9, 0.9, 0.0]), ["cat"], judge) == {"cat": 0}


def test_a_class_given_twice_is_refused() -> None:
    targets = [Target(0, "cat", patches(0), None), Target(0, "cat", patches(1), None)]
    with pytest.raises(ValueError, match="twice"):
        measure({0: maps([[], [], [], []])}, targets)


def test_scores_equal_scikit_learn_with_ties() -> None:
    rng = np.random.default_rng(0)
    activation = np.maximum(rng.integers(-3, 4, size=(60, 36)), 0).astype(np.float16)
    truth = rng.random((60, 36)) < 0.3
    truth[:, 0], truth[:, 1] = True, False
    activation[0] = 0
    scores = map_scores(activation, truth, 2, 0)
    for i in range(60):
        assert scores.auroc_i[i] == pytest.approx(roc_auc_score(truth[i], activation[i]))
        assert scores.average_precision_i[i] == pytest.approx(
            average_precision_score(truth[i], activation[i])
        )
        active = activation[i] > 0
        assert scores.iou_active_i[i] == pytest.approx(
            (active & truth[i]).sum() / (active | truth[i]).sum()
        )
        best = max(
            ((activation[i] >= t) & truth[i]).sum() / ((activation[i] >= t) | truth[i]).sum()
            for t in {*activation[i].tolist()} - {0.0} or {np.inf}
        )
        assert scores.iou_best_i[i] == pytest.approx(best)


def test_chance_levels_hold_for_random_maps() -> None:
    rng = np.random.default_rng(1)
    activation = np.maximum(rng.normal(size=(1500, 16)), 0)
    truth = rng.random((1500, 16)) < 0.4
    truth[:, 0], truth[:, 1] = True, False
    order = rng.permuted(np.tile(np.arange(16), (1500, 1)), axis=1)
    truth = np.take_along_axis(truth, order, axis=1)
    scores = map_scores(activation, truth, 10, 0)
    assert scores.iou_active_i.mean() == pytest.approx(scores.iou_active_chance_i.mean(), abs=0.01)
    assert scores.iou_best_i.mean() == pytest.approx(scores.iou_best_chance_i.mean(), abs=0.01)
    precision, chance = scores.average_precision_i.mean(), scores.average_precision_chance_i.mean()
    assert precision == pytest.approx(chance, abs=0.01)
    # The object's share of the patches would be too low a bar for a ranking of 16 patches.
    assert chance > truth.mean() + 0.03


def test_blocks_do_not_change_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(2)
    activation, truth = rng.random((30, 16)), rng.random((30, 16)) < 0.5
    truth[:, 0], truth[:, 1] = True, False
    whole = map_scores(activation, truth, 1, 0)
    monkeypatch.setattr("vista.metrics.patch_scores._BLOCK_CELLS", 16 * 16 * 4)
    pieces = map_scores(activation, truth, 1, 0)
    assert np.allclose(whole.auroc_i, pieces.auroc_i)
    assert np.allclose(whole.iou_best_i, pieces.iou_best_i)


def test_groups_pool_the_layers_over_their_own_images() -> None:
    halves = np.array([1.0, 2, 0, 0, 0, 0, 0, 0, 0])
    activation = {(0, 0): halves, (1, 0): halves[::-1], (2, 0): halves}
    layers = {
        number: maps([[(0, 0)], [(0, 8)], [(0, 8)], []], activation, {"cat": 0})
        for number in (0, 1)
    }
    targets = [Target(b, "cat", patches(0, 1), patches(0, 1)) for b in range(3)]
    whole = measure(layers, targets)
    result = measure(layers, targets, groups=["a", "b", "b", None])
    assert result.over_layers == whole.over_layers
    assert "groups" not in whole.model_dump_json()
    a, b = result.groups["a"], result.groups["b"]
    assert (a.pointing.value, a.pointing.n, a.n_pointing_images) == (1.0, 2, 1)
    assert (b.pointing.value, b.pointing.n, b.n_pointing_images) == (0.0, 4, 2)
    assert a.maps[0].auroc.value == 1.0
    # One map is right, the other points at the opposite corner: 7 other patches, two before it.
    assert b.maps[0].auroc.value == pytest.approx((1.0 + 5 / 14) / 2)
    assert (a.maps[0].auroc.n, b.maps[0].auroc.n) == (2, 4)
    rows = [(row.metric, row.of, row.layer, row.set) for row in result.figures() if row.set]
    assert rows.count(("pointing_game", None, None, "a")) == 1
    assert rows.count(("pointing_game", "unmasked", None, "a")) == 1
    assert len(rows) == 2 * len(whole.over_layers.figures())
