"""SigLIP 2 NaFlex: the tower takes patches that are cut already, and the shape of their grid.

Images are square here, so every patch of the grid is seen and nothing is padded.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vista.encoders.registry import EncoderFamily


def cut_patches(pixels_bchw: Tensor, patch: int) -> dict[str, Tensor]:
    """The tower's inputs: patches [b, p, patch * patch * 3], their mask [b, p], grid shapes [b, 2].

    Patches are row-major; inside one, row, column, colour. What `patch` does not divide is left
    out at the right and the bottom.
    """
    b, channels, height, width = pixels_bchw.shape
    rows, columns = height // patch, width // patch
    whole = pixels_bchw[:, :, : rows * patch, : columns * patch]
    cut = whole.reshape(b, channels, rows, patch, columns, patch).permute(0, 2, 4, 3, 5, 1)
    device = pixels_bchw.device
    return {
        "pixel_values": cut.reshape(b, rows * columns, -1),
        "pixel_attention_mask": torch.ones(b, rows * columns, dtype=torch.int32, device=device),
        "spatial_shapes": torch.tensor([[rows, columns]] * b, device=device),
    }


FAMILY = EncoderFamily(
    model_types=("siglip2", "siglip2_vision_model"),
    prefix_tokens=lambda tower: 0,
    norm=lambda tower: tower.post_layernorm,
    resample=2,
    inputs=cut_patches,
)
