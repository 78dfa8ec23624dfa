"""Reconstruction: figures computed by hand from planted residuals."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from vista.metrics.reconstruction.measure import (
    LayerReconstruction,
    ReconstructionResult,
    join_sums,
    reconstruct_layer,
    token_sums,
)

DRAWS = {"seed": 0, "resamples": 200, "level": 0.95}


def summarise(
    x_btd: NDArray[np.float64],
    rebuilt_btd: NDArray[np.float64],
    nnz_bt: NDArray[np.int64],
    valid_bt: NDArray[np.bool_],
    n_latents: int = 10,
) -> LayerReconstruction:
    error = ((rebuilt_btd - x_btd) ** 2).mean(axis=2)
    mean_d = x_btd[valid_bt].mean(axis=0)
    total_bd = np.where(valid_bt[..., None], x_btd, 0).sum(axis=1)
    total2 = (total_bd**2).mean(axis=1)
    sums = token_sums(error, (x_btd**2).mean(axis=2), nnz_bt, valid_bt, total2)
    fired = np.arange(n_latents) < 4
    return reconstruct_layer(
        sums, float((mean_d**2).mean()), fired, layer=2, token_kind="text", **DRAWS
    )


def test_figures_equal_their_definitions() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(2.0, 1.5, size=(12, 4, 8))
    rebuilt = x + rng.normal(0, 0.5, size=x.shape)
    nnz = rng.integers(1, 6, size=(12, 4))
    valid = rng.random((12, 4)) < 0.7
    valid[:, 0] = True
    part = summarise(x, rebuilt, nnz, valid)
    flat, flat_rebuilt = x[valid], rebuilt[valid]
    error = ((flat_rebuilt - flat) ** 2).mean()
    assert part.mse.value == pytest.approx(error)
    assert part.fvu.value == pytest.approx(error / ((flat - flat.mean(axis=0)) ** 2).mean())
    assert part.l0.value == pytest.approx(nnz[valid].mean())
    assert part.active_share.value == pytest.approx(nnz[valid].mean() / 10)
    assert part.mse.n == int(valid.sum())
    assert part.n_images == 12
    assert (part.fired_share.value, part.fired_share.n) == (0.4, 10)
    assert part.variance.value == pytest.approx(((flat - flat.mean(axis=0)) ** 2).mean())
    means = np.stack([x[b, valid[b]].mean(axis=0) for b in range(12)])
    between = (((means - flat.mean(axis=0)) ** 2).mean(axis=1) * valid.sum(axis=1)).sum()
    assert part.image_variance.value == pytest.approx(between / valid.sum())
    assert part.image_variance.n == 12
    assert part.mse.ci_low is not None
    assert part.mse.ci_high is not None
    assert part.mse.ci_low < error < part.mse.ci_high


def test_answering_the_mean_has_the_chance_level() -> None:
    x = np.random.default_rng(1).normal(5.0, 1.0, size=(6, 3, 4))
    rebuilt = np.broadcast_to(x.reshape(-1, 4).mean(axis=0), x.shape)
    part = summarise(x, rebuilt, np.ones((6, 3), int), np.ones((6, 3), bool))
    assert part.fvu.value == pytest.approx(1.0)
    assert part.fvu.chance == 1.0


def test_padding_counts_nothing_whatever_it_holds() -> None:
    x = np.random.default_rng(2).normal(size=(3, 4, 2))
    valid = np.ones((3, 4), bool)
    valid[:, 3] = False
    nnz = np.full((3, 4), 2)
    clean = summarise(x, x + 1, nnz, valid)
    x[:, 3] = np.nan
    nnz[:, 3] = 400
    assert summarise(x, x + 1, nnz, valid) == clean
    assert clean.mse.value == pytest.approx(1.0)
    assert clean.l0.value == pytest.approx(2.0)


def test_a_broken_token_is_an_error_not_a_figure() -> None:
    error = np.array([[1.0, np.nan]])
    with pytest.raises(ValueError, match="finite"):
        token_sums(error, np.ones((1, 2)), np.ones((1, 2)), np.ones((1, 2), bool))


def test_images_without_such_tokens_are_left_out() -> None:
    valid = np.array([[True, True], [False, False]])
    x = np.random.default_rng(3).normal(size=(2, 2, 3))
    part = summarise(x, x, np.ones((2, 2), int), valid)
    assert part.n_images == 1
    none = token_sums(*(np.zeros((2, 2)) for _ in range(3)), np.zeros((2, 2), bool))
    silent = np.zeros(10, bool)
    empty = reconstruct_layer(none, 0.0, silent, layer=0, token_kind="control", **DRAWS)
    assert empty.mse.value is None
    assert empty.fvu.value is None
    assert empty.l0.n == 0
    assert empty.fired_share.value is empty.variance.value is empty.image_variance.value is None


def test_images_that_all_look_the_same_have_no_variance_between_them() -> None:
    row = np.random.default_rng(6).normal(size=(1, 7, 3))
    part = summarise(np.repeat(row, 4, axis=0), np.zeros((4, 7, 3)), *counted(4, 7))
    assert part.variance.value == pytest.approx(row[0].var(axis=0).mean())
    assert part.image_variance.value == pytest.approx(0.0, abs=1e-12)
    apart = np.arange(4.0)[:, None, None] * np.ones((1, 7, 3))
    part = summarise(apart, apart, *counted(4, 7))
    assert part.image_variance.value == pytest.approx(part.variance.value)


def counted(images: int, tokens: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    return np.ones((images, tokens), dtype=np.int64), np.ones((images, tokens), dtype=np.bool_)


def test_reading_in_pieces_changes_nothing() -> None:
    rng = np.random.default_rng(4)
    arrays = [rng.random((6, 3)) for _ in range(3)]
    valid = rng.random((6, 3)) < 0.8
    total2 = rng.random(6)
    whole = token_sums(*arrays, valid, total2)
    pieces = join_sums(
        [
            token_sums(*(each[cut] for each in arrays), valid[cut], total2[cut])
            for cut in (slice(0, 2), slice(2, 6))
        ]
    )
    assert np.array_equal(whole.error_b, pieces.error_b)
    assert np.array_equal(whole.tokens_b, pieces.tokens_b)
    assert pieces.total2_b is not None
    assert np.array_equal(total2, pieces.total2_b)
    halves = [token_sums(*arrays, valid), token_sums(*arrays, valid, total2)]
    assert join_sums(halves).total2_b is None


def test_rows_name_layer_and_kind() -> None:
    x = np.random.default_rng(5).normal(size=(2, 2, 3))
    part = summarise(x, x, np.ones((2, 2), int), np.ones((2, 2), bool))
    rows = ReconstructionResult(parts=[part]).figures()
    assert [(row.metric, row.layer, row.token_kind) for row in rows] == [
        (name, 2, "text")
        for name in (
            *("mse", "fvu", "l0", "active_share"),
            *("fired_share", "variance", "stream_rms", "image_variance"),
        )
    ]
