"""Ranked latents of a store under several masks, and the token with the largest norm."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from vista.config.metrics import MaskBounds
from vista.inputs.latents import rank_layer
from vista.inputs.maps import salient_tokens
from vista.sae.label_table import LatentLabels
from vista.store.latents import LatentReader, LatentWriter

# Latents of four images of two tokens: one slot each. Latent 3 has no label, 4 fires on much text.
INDEX = [[0, 1], [0, 2], [0, 3], [0, 4]]
VALUE = [[9.0, 1.0], [8.0, 2.0], [7.0, 3.0], [6.0, 4.0]]
NORM2 = [[1.0, 2.0], [3.0, 2.0], [5.0, 5.0], [1.0, 9.0]]


def store(path: Path, index: Any, norm2: Any = NORM2, valid: Any = None) -> LatentReader:
    shape = np.shape(index)
    ids = [f"i{b}" for b in range(shape[0])]
    writer = LatentWriter(path, ids, (1, 2), {5: 5}, {"image": 2}, k=1)
    writer.set_valid("image", 0, np.ones(shape, bool) if valid is None else np.array(valid))
    value = np.array(VALUE[: shape[0]], np.float16)[..., None]
    nnz = np.ones(shape, np.uint16)
    columns = (np.array(index, np.uint16)[..., None], value, nnz, np.zeros(shape, np.float32))
    writer.write("image", 0, 5, *columns, np.array(norm2, np.float32))
    writer.finish(5, "image", np.full(4, 1.0))
    writer.close()
    return LatentReader(path)


def labels() -> LatentLabels:
    density = np.array([0.001, 0.001, 0.001, 0.001, 0.3], np.float32)
    names = ("grass", "cat", "dog", None, "the")
    return LatentLabels(5, "s", 10, names, np.ones(5, np.float32), density, ((),) * 5)


def first(ranked: NDArray[np.int64]) -> list[int]:
    latents: list[int] = ranked[:, 0].tolist()
    return latents


def test_one_reading_ranks_under_all_masks(tmp_path: Path) -> None:
    bounds = MaskBounds(0.5, 0.1)
    pairs = [bounds, *(bounds.without(name) for name in ("no_frequency_mask", "unmasked"))]
    layer = rank_layer(store(tmp_path / "z", INDEX), 5, labels(), pairs, 2)
    masked, free, unmasked = (layer.ranked[pair].latent_bn for pair in pairs)
    # An unlabelled latent is never ranked.
    assert first(masked) == [1, 2, -1, -1]
    assert free.tolist() == [[0, 1], [0, 2], [0, -1], [0, -1]]
    assert unmasked.tolist() == [[0, 1], [0, 2], [0, -1], [0, 4]]
    assert layer.fires_s.all()
    # All, too frequent, too dense, either, unlabelled.
    assert layer.activation_bm.tolist() == [
        [10, 9, 0, 9, 0],
        [10, 8, 0, 8, 0],
        [10, 7, 0, 7, 3],
        [10, 6, 4, 10, 0],
    ]


def test_the_shares_of_other_images_decide_what_is_frequent(tmp_path: Path) -> None:
    bounds = MaskBounds(0.5, 0.1)
    # There latent 1 fires in all three images, latent 0 in one.
    others = store(tmp_path / "others", [[1, 0], [1, 2], [1, 2]], NORM2[:3])
    layer = rank_layer(store(tmp_path / "z", INDEX), 5, labels(), [bounds], 1, others)
    assert layer.masks[bounds].frequent_s.tolist() == [False, True, True, False, False]
    assert first(layer.ranked[bounds].latent_bn) == [0, 0, 0, 0]
    assert layer.activation_bm[:, 1].tolist() == [1, 2, 0, 0]


def test_the_most_salient_token_has_the_largest_norm_of_those_that_are_there(
    tmp_path: Path,
) -> None:
    valid = [[True, True], [True, True], [True, True], [True, False]]
    reader = store(tmp_path / "z", INDEX, valid=valid)
    assert salient_tokens(reader, 5).tolist() == [1, 0, 0, 0]


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_equal_bounds_are_one_ranking(tmp_path: Path, share: float) -> None:
    pair = MaskBounds(share, 1.0)
    layer = rank_layer(store(tmp_path / "z", INDEX), 5, labels(), [pair, pair], 1)
    assert list(layer.ranked) == [pair]
