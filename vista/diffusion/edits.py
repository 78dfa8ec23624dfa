"""Edits of a text encoder's residual stream: a direction added, a latent ablated, and controls.

Legend: t word of a prompt, d width of the stream.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from vista.diffusion.pipeline import Edit
from vista.sae.neutral import SparseAutoencoder


def add_direction(direction_d: Tensor, length: float) -> Edit:
    """Add the direction, scaled to `length`, at every word."""
    added_d = length * direction_d / direction_d.norm()
    return lambda x_td: added_d.expand_as(x_td)


def ablate_latent(sae: SparseAutoencoder, latent: int, direction_d: Tensor | None = None) -> Edit:
    """Subtract what the latent writes from every word; the SAE's error stays.

    With `direction_d` the same length is subtracted along that direction instead, as a control.
    """
    row_d = sae.decoder_row(latent).detach()
    along_d = row_d if direction_d is None else direction_d / direction_d.norm() * row_d.norm()

    @torch.no_grad()
    def edit(x_td: Tensor) -> Tensor:
        return -sae.encode(x_td)[:, latent, None] * along_d

    return edit


def random_direction(width: int, rng: np.random.Generator) -> Tensor:
    """A direction [d], uniform over the sphere."""
    return torch.from_numpy(rng.standard_normal(width).astype(np.float32))
