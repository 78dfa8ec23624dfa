"""One vector an image, pooled over its patches: what the probing experiments compare.

Latents are pooled by their maximum, since a latent's top images are ranked by their strongest patch
as well; raw features by their mean. A store of one token an image (a class token) needs no pooling.

Shape legend: b image of a batch, n image, p patch, d channel, s dictionary latent.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

    from vista.sae.neutral import SparseAutoencoder
    from vista.sae.patches import Features

# Patches read at once where no SAE bounds them.
_PATCHES = 2**14
# Of a patch's squared norm: only a patch of zeros is below it.
_SMALLEST = 1e-12


def image_latents(
    sae: SparseAutoencoder, features: Features, images: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Return the largest activation of each latent over an image's patches, [n, s]."""
    out_ns = np.empty((len(images), sae.config.d_sae), np.float32)
    for rows, x_bpd in _batches(features, images, sae.dense_rows, sae.b_dec.device):
        out_ns[rows] = _strongest(sae.encode(x_bpd.flatten(0, 1)), len(x_bpd))
    return out_ns


def image_means(features: Features, images: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return the mean of an image's patch features, [n, d]."""
    out_nd = np.empty((len(images), features.shape[2]), np.float32)
    for rows, x_bpd in _batches(features, images, _PATCHES):
        out_nd[rows] = x_bpd.mean(dim=1).numpy()
    return out_nd


def image_codes(
    sae: SparseAutoencoder, features: Features, images: NDArray[np.int64]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return `image_latents` [n, s], and the mean over patches of |SAE(x) - x|^2 / |x|^2 [n]."""
    out_ns = np.empty((len(images), sae.config.d_sae), np.float32)
    error_n = np.empty(len(images), np.float32)
    for rows, x_bpd in _batches(features, images, sae.dense_rows, sae.b_dec.device):
        x_nd = x_bpd.flatten(0, 1)
        z_ns = sae.encode(x_nd)
        out_ns[rows] = _strongest(z_ns, len(x_bpd))
        residual_n = (sae.decode(z_ns, like=x_nd) - x_nd).square().sum(dim=-1)
        residual_n /= x_nd.square().sum(dim=-1).clamp_min(_SMALLEST)
        error_n[rows] = residual_n.reshape(len(x_bpd), -1).mean(dim=1).cpu().numpy()
    return out_ns, error_n


def _strongest(z_ns: torch.Tensor, images: int) -> NDArray[np.float32]:
    """Return the maximum over each image's patches, [images, s]."""
    max_ns: NDArray[np.float32] = z_ns.reshape(images, -1, z_ns.shape[-1]).amax(dim=1).cpu().numpy()
    return max_ns


def _batches(
    features: Features,
    images: NDArray[np.int64],
    patches: int,
    device: torch.device | str = "cpu",
) -> Iterator[tuple[slice, torch.Tensor]]:
    """Yield slices of `images` and their features, float32 [b, p, d], `patches` at a time."""
    from vista.sae.patches import read_patches

    n_patches, start = features.shape[1], 0
    for x_nd in read_patches(features, images, patches):
        x_bpd = x_nd.to(device).reshape(-1, n_patches, features.shape[2])
        yield slice(start, start + len(x_bpd)), x_bpd
        start += len(x_bpd)
