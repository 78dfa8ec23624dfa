"""Dense latents: float32 of them all, a file an image by torch.save; read whole, sorted whole.

Suffixes: t tokens, s latents of the dictionary.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

Found = tuple[int, int, float]


def save(path: Path, latents_ts: NDArray[np.float32]) -> None:
    """Write the latents of one image and layer."""
    torch.save(torch.from_numpy(latents_ts), path)


def top_latents(path: Path, n_top: int) -> list[Found]:
    """Return (latent, token, activation) of the `n_top` distinct latents that fire most."""
    latents_ts = torch.load(path)
    n_tokens = len(latents_ts)
    # By latent first, so that equal activations come in the order that our ranking gives them.
    values, order = latents_ts.T.flatten().sort(descending=True, stable=True)
    found: dict[int, Found] = {}
    for value, place in zip(values.numpy(), order.numpy(), strict=True):
        if len(found) == n_top or value <= 0:
            break
        latent, token = divmod(int(place), n_tokens)
        found.setdefault(latent, (latent, token, float(value)))
    return list(found.values())


def top_images(paths: Sequence[Path], latent: int, n_top: int) -> list[Found]:
    """Return (image, token, activation) of the images at which a latent fires most."""
    found = []
    for image, path in enumerate(paths):
        value, token = torch.load(path)[:, latent].max(0)
        if value > 0:
            found.append((image, int(token), float(value)))
    return sorted(found, key=lambda each: -each[2])[:n_top]
