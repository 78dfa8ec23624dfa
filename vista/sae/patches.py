"""An encoder's patch features as the tokens of an SAE, read from a store image by image.

All patches count alike, the padding's too: the SAE meets them all where it is used. Memory is
bounded by what the caller asks to hold, never by the store.

Shape legend: b image, p patch, n patch of several images one after another, d channel.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray


class Features(Protocol):
    """Dense features as `vista.store.features.FeatureReader` gives them."""

    shape: tuple[int, int, int]

    def read(self, indices: Any) -> NDArray[Any]:
        """Return the features of some images [b, p, d]."""


def read_patches(
    features: Features, images: Sequence[int] | NDArray[np.int64], patches: int
) -> Iterator[torch.Tensor]:
    """Yield all patches of `images` in order, float32 [n, d], about `patches` at a time.

    A part is whole images, one at least.
    """
    size = max(1, patches // features.shape[1])
    for start in range(0, len(images), size):
        part = np.asarray(features.read(images[start : start + size]), dtype=np.float32)
        yield torch.from_numpy(part.reshape(-1, features.shape[2]))


def shuffled_patches(
    features: Features,
    images: NDArray[np.int64],
    size: int,
    buffer: int,
    rng: np.random.Generator,
    device: str | torch.device = "cpu",
) -> Iterator[torch.Tensor]:
    """Yield endless batches [size, d] in random order over (image, patch), epoch after epoch.

    Images come in random order; the patches of as many as fill `buffer` are shuffled together. So
    each patch comes once an epoch, and a store larger than memory is read by whole images. Where
    the buffer holds all images, the order is a uniform one.
    """
    rest_nd = torch.zeros((0, features.shape[2]))
    while True:
        for part_nd in read_patches(features, rng.permutation(images), buffer):
            pool_nd = part_nd[torch.from_numpy(rng.permutation(len(part_nd)))]
            pool_nd = torch.cat([rest_nd, pool_nd])
            whole = len(pool_nd) // size * size
            for start in range(0, whole, size):
                yield pool_nd[start : start + size].to(device)
            rest_nd = pool_nd[whole:].clone()
