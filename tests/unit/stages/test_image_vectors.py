"""One vector an image: what it is of, and that batches don't show."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from vista.inputs.image_vectors import image_codes, image_latents, image_means
from vista.sae.neutral import SaeConfig, SparseAutoencoder


class Stored:
    """Features as a store gives them, float16."""

    def __init__(self, x_bpd: Any) -> None:
        self.x, self.shape = np.asarray(x_bpd, np.float16), np.shape(x_bpd)

    def read(self, indices: Any) -> Any:
        return self.x[np.asarray(indices)]


def sae(**changes: Any) -> SparseAutoencoder:
    """Latents are the two channels and their sum; the sum is written nowhere."""
    config = SaeConfig("standard", 2, 3, layer=0, name="planted", **changes)
    weights = {
        "W_enc": torch.tensor([[1.0, 0, 1], [0, 1, 1]]),
        "W_dec": torch.tensor([[1.0, 0], [0, 0.5], [0, 0]]),
        "b_dec": torch.zeros(2),
        "b_enc": torch.zeros(3),
    }
    return SparseAutoencoder(config, weights)


IMAGES = [[[9, 9], [9, 9]], [[1, 0], [0, 2]], [[-4, 0], [3, 4]], [[0, 0], [0, 0]]]


@pytest.mark.parametrize("rows", [1, 4, 64])
def test_maxima_means_and_errors(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SparseAutoencoder, "dense_rows", rows)
    stored, images = Stored(IMAGES), np.array([2, 1, 3])
    np.testing.assert_array_equal(
        image_latents(sae(), stored, images), [[3, 4, 7], [1, 2, 2], [0, 0, 0]]
    )
    np.testing.assert_array_equal(image_means(stored, images), [[-0.5, 2], [0.5, 1], [0, 0]])
    # (1 + 4/25) / 2 and (0 + 1/4) / 2.
    latents, errors = image_codes(sae(), stored, images)
    np.testing.assert_array_equal(latents, image_latents(sae(), stored, images))
    np.testing.assert_allclose(errors, [0.58, 0.125, 0], rtol=1e-6)
