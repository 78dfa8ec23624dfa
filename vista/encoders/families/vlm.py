"""The visual tokens of a vision-language model: its vision tower and projector, as its class joins
them.

| model_type | tower, as published             | projector                               | grid    |
|------------|---------------------------------|-----------------------------------------|---------|
| gemma3     | SigLIP, 896 px, 64 x 64 patches | mean of 4 x 4 patches, RMS norm, linear | 16 x 16 |
| llava      | CLIP L, 336 px, layer -2        | two linear layers, a GELU between them  | 24 x 24 |
| llava_next | CLIP L, 336 px, layer -2        | as llava                                | 24 x 24 |
| qwen2_5_vl | a ViT of any size, patch 14     | 2 x 2 patches, norm, two linear layers  | by size |

Of LLaVA-NeXT the tokens are those of the whole image alone, the first tile of its class. The
further tiles, whose number follows from the image's size, and the tokens that end their rows are
left out, since they lie on no one grid.
"""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from vista.encoders.preprocessing import square
from vista.encoders.registry import EncoderFamily, plain_inputs


class VisualTokens(nn.Module):
    """The vision half of a vision-language model.

    Attributes:
        config: what an encoder reads of a tower's config; a patch is the part of the image that
            one visual token stands for, and the hidden size is the language model's.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        # What writes text would only fill memory.
        model.language_model = None
        self.model = model
        vision = model.config.vision_config
        patch = square(vision.patch_size, "vision_config.patch_size")
        patch *= getattr(vision, "spatial_merge_size", 1)
        size = getattr(vision, "image_size", None)
        if pooled := getattr(model.config, "mm_tokens_per_image", None):
            patch = square(size, "vision_config.image_size") // max(1, math.isqrt(pooled))
        self.config = SimpleNamespace(
            model_type=model.config.model_type,
            hidden_size=model.config.get_text_config().hidden_size,
            patch_size=patch,
            image_size=size,
            num_channels=getattr(vision, "num_channels", 3),
        )

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Return the visual tokens [b, p, d] of pixels [b, 3, size, size]."""
        if self.config.model_type == "llava_next":
            return self._whole_image(pixel_values)
        if self.config.model_type == "qwen2_5_vl":
            return self._merged(pixel_values)
        tokens = self.model.get_image_features(pixel_values, return_dict=True).pooler_output
        return tokens if isinstance(tokens, Tensor) else torch.stack(list(tokens))

    def _whole_image(self, pixel_values: Tensor) -> Tensor:
        config = self.model.config
        tower = self.model.vision_tower(pixel_values, output_hidden_states=True, return_dict=True)
        layers = config.vision_feature_layer
        layers = [layers] if isinstance(layers, int) else layers
        patches = torch.cat([tower.hidden_states[layer] for layer in layers], dim=-1)
        if config.vision_feature_select_strategy == "default":
            patches = patches[:, 1:]
        tokens: Tensor = self.model.multi_modal_projector(patches)
        return tokens

    def _merged(self, pixel_values: Tensor) -> Tensor:
        vision = self.model.config.vision_config
        cut, grid_b3 = cut_patches(
            pixel_values, vision.patch_size, vision.spatial_merge_size, vision.temporal_patch_size
        )
        tokens = self.model.get_image_features(cut, grid_b3, return_dict=True).pooler_output
        return torch.stack(list(tokens))


def cut_patches(pixels_bchw: Tensor, patch: int, merge: int, frames: int) -> tuple[Tensor, Tensor]:
    """Qwen2.5-VL's inputs: the patches of all images [b * p, 3 * frames * patch * patch], and the
    frames, rows and columns of each image's patches [b, 3].

    Squares of merge x merge patches, which become one token, come one after another, row by row.
    A still image is shown as `frames` equal ones.
    """
    b, channels, height, width = pixels_bchw.shape
    rows, columns = height // patch, width // patch
    cut = pixels_bchw.reshape(
        b, channels, rows // merge, merge, patch, columns // merge, merge, patch
    ).permute(0, 2, 5, 3, 6, 1, 4, 7)
    repeated = cut.unsqueeze(6).expand(*cut.shape[:6], frames, patch, patch)
    grid_b3 = torch.tensor([[1, rows, columns]] * b, device=pixels_bchw.device)
    return repeated.reshape(b * rows * columns, -1), grid_b3


def _tower(model: Any) -> Any:
    return model if isinstance(model, VisualTokens) else VisualTokens(model)


def _inputs(pixels_bchw: Tensor, patch: int) -> Any:
    return plain_inputs(pixels_bchw, patch)


_TYPES = ("gemma3", "llava", "llava_next", "qwen2_5_vl")

FAMILY = EncoderFamily(
    model_types=_TYPES,
    prefix_tokens=lambda tower: 0,
    norm=lambda tower: None,
    resample=3,
    # A function of its own: these models are no plain vision transformers.
    inputs=_inputs,
    tower=_tower,
    blocks=lambda tower: [tower],
    any_size=("qwen2_5_vl",),
    instead=f"expected one of {', '.join(_TYPES)}; train a projector for other models",
)
