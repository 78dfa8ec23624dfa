"""Selectivity against scikit-learn, and shares of concepts that a reader counts by hand."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from vista.metrics.shared_latents.measure import (
    LayerSelectivity,
    least_entries,
    mark,
    selectivity,
    shared_latents,
)


@pytest.mark.parametrize("seed", range(3))
def test_selectivity_is_the_auroc_of_the_dense_activations(seed: int) -> None:
    rng = np.random.default_rng(seed)
    # Few values, so that there are ties among entries as among zeros; one latent never fires.
    dense_ts = rng.integers(0, 4, (60, 7)) * (rng.random((60, 7)) < 0.4) / 2
    dense_ts[:, 3] = 0
    positive_tc = rng.random((60, 3)) < [0.1, 0.4, 0.9]
    token_n, latent_n = np.nonzero(dense_ts)
    order = rng.permutation(len(token_n))
    token_n, latent_n = token_n[order], latent_n[order]
    found = selectivity(
        latent_n,
        token_n,
        dense_ts[token_n, latent_n],
        # A pair that comes twice is one.
        mark(*(np.tile(axis, 2) for axis in np.nonzero(positive_tc)), 60, 3),
        7,
    )
    expected = [[roc_auc_score(of_c, by_s) for of_c in positive_tc.T] for by_s in dense_ts.T]
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_no_latent_below_the_least_entries_reaches_the_bound() -> None:
    # 10 positives of 1000 tokens: firing on 8 of them and nowhere else gives just 0.9.
    tokens = mark(np.arange(10), np.zeros(10, dtype=np.int64), 1000, 1)
    found = [
        selectivity(np.zeros(m, int), np.arange(m), np.ones(m), tokens, 1)[0, 0] for m in (7, 8)
    ]
    assert found[0] < 0.9 - 1e-9 < found[1]
    assert least_entries(tokens, 0.9) == pytest.approx(8)


def test_a_shared_latent_is_selective_for_one_concept_in_both() -> None:
    high, low = 0.95, 0.5
    # Latent 0: concept 0 on text, concept 0 on images. Latent 1: concept 1 on text, 2 on images.
    # Latent 2: concept 2 on text, but only nearly on images.
    text_sc = np.array([[high, low, low], [low, high, low], [low, low, high]])
    image_sc = np.array([[high, low, low], [low, low, high], [low, low, 0.89]])
    deep_sc = np.array([[low, low, low], [low, high, low], [np.nan] * 3])
    layers = {
        3: LayerSelectivity(text_sc, image_sc, text_sc.argmax(axis=0)),
        1: LayerSelectivity(text_sc, deep_sc, np.array([0, 1, 1])),
    }
    draws = {"seed": 0, "resamples": 50, "level": 0.9}
    result = shared_latents(layers, min_auroc=0.9, n_too_rare=4, **draws)
    assert [part.layer for part in result.layers] == [1, 3]
    first, second = result.layers
    assert second.shared.value == pytest.approx(1 / 3)
    # The text of concept 1 with the images of concept 2: one of six pairs.
    assert second.shared.chance == pytest.approx(1 / 6)
    assert (second.on_text.value, second.on_images.value) == (1, pytest.approx(2 / 3))
    assert (second.on_text.chance, second.on_images.chance) == (0, 0)
    assert second.transfer is not None
    assert second.transfer.value == pytest.approx((high + low + 0.89) / 3)
    assert second.transfer.chance == pytest.approx((5 * low + high) / 6)
    assert first.shared.value == pytest.approx(1 / 3)
    # Concepts 0 and 1 have a shared latent in some layer; still one of six other pairs.
    assert result.any_layer.shared.value == pytest.approx(2 / 3)
    assert result.any_layer.shared.chance == pytest.approx(1 / 6)
    assert result.any_layer.on_images.value == 1
    names = {(row.metric, row.layer, row.token_kind) for row in result.figures()}
    assert len(names) == len(result.figures()) == 11
    # A latent that fires on the words of every concept is selective for none of them alone.
    text_sc[0] = high
    layers[3] = LayerSelectivity(text_sc, image_sc, text_sc.argmax(axis=0))
    broad = shared_latents(layers, min_auroc=0.9, n_too_rare=4, **draws).layers[1]
    assert (broad.on_text.value, broad.on_text.chance, broad.on_images.chance) == (1, 1, 0)
    assert broad.shared.chance == pytest.approx(3 / 6)
    with pytest.raises(ValueError, match="no other one"):
        shared_latents(
            {0: LayerSelectivity(text_sc[:, :1], image_sc[:, :1], np.array([0]))},
            min_auroc=0.9,
            n_too_rare=0,
            **draws,
        )
