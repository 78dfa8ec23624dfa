"""Dictionaries that a vision SAE is compared with: random directions, and the features' channels.

Shape legend: d channel, s latent.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from vista.sae.neutral import SparseAutoencoder


def random_directions(d: int, s: int, seed: int) -> NDArray[np.float64]:
    """Return `s` random unit directions [s, d]; relu(x @ rows.T) are their activations."""
    rows_sd = np.random.default_rng(seed).standard_normal((s, d))
    return np.asarray(rows_sd / np.linalg.norm(rows_sd, axis=1, keepdims=True))


def random_sae(sae: SparseAutoencoder, k: int, seed: int) -> SparseAutoencoder:
    """Return `sae` with random directions for its latents, of which each patch keeps the `k`
    largest.

    With `k` the SAE's own L0 it differs from the SAE in nothing but in what the SAE has learnt.
    """
    import torch

    from vista.sae.neutral import SparseAutoencoder

    d_in, d_sae = sae.config.d_in, sae.config.d_sae
    rows_sd = torch.from_numpy(random_directions(d_in, d_sae, seed).astype(np.float32))
    weights = {
        "W_enc": rows_sd.T,
        "W_dec": rows_sd,
        "b_enc": torch.zeros(d_sae),
        "b_dec": sae.b_dec.cpu(),
    }
    # Always around the SAE's own centre: the mean feature would make the same few fire everywhere.
    # An empty activation is that of the architecture; the SAE's own would keep its own latents.
    config = replace(
        sae.config,
        architecture="topk",
        activation="",
        k=min(max(k, 1), d_sae),
        subtract_decoder_bias=True,
    )
    return SparseAutoencoder(config, weights).to(sae.b_dec.device)


def neurons(d: int) -> SparseAutoencoder:
    """Return the features' channels as a dictionary: each fires where it is above zero."""
    import torch

    from vista.sae.neutral import SaeConfig, SparseAutoencoder

    config = SaeConfig("standard", d, d, layer=0, name="neurons", subtract_decoder_bias=False)
    weights = {"W_enc": torch.eye(d), "W_dec": torch.eye(d)}
    return SparseAutoencoder(config, {**weights, "b_enc": torch.zeros(d), "b_dec": torch.zeros(d)})
