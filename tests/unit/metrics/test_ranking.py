"""Masks and ranking: padding, ties, distinct latents, and the two limits."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from vista.config.metrics import WITHOUT, MaskBounds
from vista.metrics.ranking import (
    activation_sums,
    join_ranked,
    mask_latents,
    rank_latents,
    rank_under_masks,
)

Sparse = tuple[NDArray[np.uint16], NDArray[np.float16], NDArray[np.uint16]]


def sparse(images: list[list[dict[int, float]]], slots: int = 3) -> Sparse:
    """Store images (tokens of {latent: activation}) as padded index, value and nnz."""
    tokens = max(len(image) for image in images)
    index = np.zeros((len(images), tokens, slots), dtype=np.uint16)
    value = np.zeros((len(images), tokens, slots), dtype=np.float16)
    nnz = np.zeros((len(images), tokens), dtype=np.uint16)
    for b, image in enumerate(images):
        for t, token in enumerate(image):
            nnz[b, t] = len(token)
            for k, (latent, activation) in enumerate(token.items()):
                index[b, t, k], value[b, t, k] = latent, activation
    return index, value, nnz


def test_distinct_latents_by_their_strongest_token() -> None:
    latents = sparse([[{4: 1.0, 2: 3.0}, {4: 5.0, 7: 2.0}, {4: 4.0}]])
    ranked = rank_latents(*latents, np.ones(8, dtype=bool), 4)
    assert ranked.latent_bn.tolist() == [[4, 2, 7, -1]]
    assert ranked.token_bn.tolist() == [[1, 0, 1, -1]]
    assert ranked.value_bn.tolist() == [[5.0, 3.0, 2.0, 0.0]]


def test_padding_is_not_latent_zero() -> None:
    index, value, nnz = sparse([[{3: 1.0}, {}], [{0: 2.0}, {}]])
    value[0, 0, 1] = 9.0  # left over in a slot beyond nnz
    ranked = rank_latents(index, value, nnz, np.ones(4, dtype=bool), 2)
    assert ranked.latent_bn.tolist() == [[3, -1], [0, -1]]


def test_ties_do_not_depend_on_slots() -> None:
    one = sparse([[{6: 2.0, 1: 2.0}, {5: 2.0, 1: 2.0}]])
    two = sparse([[{1: 2.0, 6: 2.0}, {1: 2.0, 5: 2.0}]])
    for latents in (one, two):
        ranked = rank_latents(*latents, np.ones(8, dtype=bool), 3)
        assert ranked.latent_bn.tolist() == [[1, 5, 6]]
        assert ranked.token_bn.tolist() == [[0, 1, 0]]


def test_masked_latents_make_room_for_the_next() -> None:
    latents = sparse([[{1: 9.0, 2: 8.0, 3: 7.0}]])
    eligible = np.array([True, False, True, True])
    assert rank_latents(*latents, eligible, 2).latent_bn.tolist() == [[2, 3]]


def test_both_limits_are_inclusive_and_unknown_density_is_out() -> None:
    share = np.array([20, 21, 0, 5, 5]) / 400
    density = np.array([0.005, 0.001, 0.0051, 0.0, np.nan], dtype=np.float32)
    mask = mask_latents(share, density, 0.05, 0.005)
    assert mask.eligible_s.tolist() == [True, False, False, True, False]
    assert mask.frequent_s.tolist() == [False, True, False, False, False]
    assert mask.dense_s.tolist() == [False, False, True, False, True]


def test_a_latent_without_a_label_is_not_ranked() -> None:
    labels = ["cat", None, "", "  ", "dog"]
    mask = mask_latents(np.zeros(5), np.zeros(5), 0.05, 0.005, labels)
    assert mask.eligible_s.tolist() == [True, False, False, False, True]
    assert not mask.masked_s.any()
    latents = sparse([[{1: 9.0, 0: 2.0}, {3: 8.0, 4: 1.0}]])
    assert rank_latents(*latents, mask.eligible_s, 2).latent_bn.tolist() == [[0, 4]]
    with pytest.raises(ValueError, match="2 labels for a dictionary of 5"):
        mask_latents(np.zeros(5), np.zeros(5), 0.05, 0.005, ["cat", "dog"])


def test_no_mask_lets_every_latent_through_whose_density_is_known() -> None:
    bounds = MaskBounds(0.05, 0.005)
    share, density = np.array([0.9, 0.01, 0.9, 0.0]), np.array([0.0, 0.9, 0.9, np.nan])
    eligible = {
        name: mask_latents(share, density, *bounds.without(name)).eligible_s.tolist()
        for name in WITHOUT
    }
    assert eligible == {
        "no_frequency_mask": [True, False, False, False],
        "no_density_mask": [False, True, False, False],
        "unmasked": [True, True, True, False],
    }


def test_several_masks_rank_as_each_alone() -> None:
    rng = np.random.default_rng(3)
    images = [
        [{int(s): float(rng.integers(1, 5)) for s in rng.integers(0, 20, 3)} for _ in range(5)]
        for _ in range(9)
    ]
    latents = sparse(images)
    eligible = rng.random((4, 20)) < np.array([0.2, 0.5, 1.0, 0.0])[:, None]
    together = rank_under_masks(*latents, eligible, 4)
    for ranked, alone in zip(together, eligible, strict=True):
        for b, image in enumerate(images):
            # By hand: every eligible latent with its strongest, first token.
            best: dict[int, tuple[float, int]] = {}
            for t, token in enumerate(image):
                for s, value in token.items():
                    if alone[s] and value > best.get(s, (0.0, 0))[0]:
                        best[s] = (value, t)
            order = sorted(best, key=lambda s: (-best[s][0], s))[:4]
            assert ranked.latent_bn[b].tolist() == order + [-1] * (4 - len(order))
            assert ranked.token_bn[b, : len(order)].tolist() == [best[s][1] for s in order]


def test_activation_is_summed_over_the_chosen_latents_without_padding() -> None:
    index, value, nnz = sparse([[{0: 1.0, 2: 3.0}, {2: 0.5}], [{1: 4.0}, {}]])
    value[1, 1, 2] = 9.0  # left over in a slot beyond nnz
    chosen = np.array([[True, True, True], [False, False, True], [False, True, False]])
    sums = activation_sums(index, value, nnz, chosen)
    assert sums.tolist() == [[4.5, 3.5, 0.0], [4.0, 0.0, 4.0]]


def test_density_of_another_dictionary_is_refused() -> None:
    with pytest.raises(ValueError, match="dictionary"):
        mask_latents(np.zeros(8), np.zeros(16), 0.05, 0.005)


def test_more_latents_than_slots_is_an_error() -> None:
    index, value, nnz = sparse([[{1: 1.0, 2: 2.0}]], slots=2)
    nnz[0, 0] = 3
    with pytest.raises(ValueError, match="3 active latents in 2 slots"):
        rank_latents(index, value, nnz, np.ones(4, dtype=bool), 1)


def test_a_latent_beyond_the_dictionary_is_an_error() -> None:
    latents = sparse([[{7: 1.0}]])
    with pytest.raises(ValueError, match="dictionary of 4"):
        rank_latents(*latents, np.ones(4, dtype=bool), 1)


def test_reading_in_pieces_changes_nothing() -> None:
    rng = np.random.default_rng(0)
    images = [
        [{int(s): float(rng.random()) for s in rng.integers(0, 20, 3)} for _ in range(5)]
        for _ in range(7)
    ]
    index, value, nnz = sparse(images)
    eligible = rng.random(20) < 0.7
    whole = rank_latents(index, value, nnz, eligible, 4)
    parts = [
        rank_latents(index[cut], value[cut], nnz[cut], eligible, 4)
        for cut in (slice(0, 3), slice(3, 7))
    ]
    joined = join_ranked(parts)
    assert np.array_equal(whole.latent_bn, joined.latent_bn)
    assert np.array_equal(whole.token_bn, joined.token_bn)
