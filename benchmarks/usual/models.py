"""The three models as plain transformers and torch give them: nothing of vista is in here.

Shape suffixes: b image, p patch token, t token, d width, s latent of an SAE.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor


def normalised(images_bhwc: Any, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Pixels [b, 3, h, w] of images with values from 0 to 255."""
    pixels = torch.from_numpy(images_bhwc).permute(0, 3, 1, 2).float() / 255
    return (pixels - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)


def patch_tokens(vision: Any, pixels_b3hw: Tensor) -> Tensor:
    """Patch tokens [b, p, d] of a ViT with one class token."""
    tokens: Tensor = vision(pixel_values=pixels_b3hw).last_hidden_state[:, 1:]
    return tokens


def spliced(language: Any, ids_bt: Tensor, visual_bpd: Tensor) -> Tensor:
    """Input embeddings [b, t, d] with the visual tokens after BOS."""
    text_btd = language.get_input_embeddings()(ids_bt)
    after = 1 + visual_bpd.shape[1]
    return torch.cat([text_btd[:, :1], visual_bpd.to(text_btd.dtype), text_btd[:, after:]], dim=1)


class JumpReluSae:
    """An SAE with dense latents: relu above a threshold for each latent."""

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        self.weights = weights

    def encode(self, x_btd: Tensor) -> Tensor:
        w = self.weights
        pre_bts = (x_btd - w["b_dec"]) @ w["W_enc"] + w["b_enc"]
        return torch.relu(pre_bts) * (pre_bts > w["threshold"])

    def decode(self, z_bts: Tensor) -> Tensor:
        return z_bts @ self.weights["W_dec"] + self.weights["b_dec"]


def plain_saes(saes: Mapping[int, Any]) -> dict[int, JumpReluSae]:
    """The same SAEs by layer, on the same weights."""
    return {layer: JumpReluSae(dict(sae.named_parameters())) for layer, sae in saes.items()}
