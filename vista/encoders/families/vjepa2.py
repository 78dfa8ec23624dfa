"""V-JEPA 2 (arXiv 2506.09985): a video model, which sees an image as a clip of equal frames.

Its tokens are those of its encoder; the predictor of masked parts is left out.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from torch import Tensor, nn

from vista.config.encoders import Vjepa2Settings
from vista.encoders.preprocessing import square
from vista.encoders.registry import VideoFamily, plain_inputs
from vista.errors import UserError


class Clip(nn.Module):
    """The model's encoder, called with images."""

    def __init__(self, model: Any, frames: int, size: int) -> None:
        super().__init__()
        config = model.config
        tubelet = config.tubelet_size
        if frames % tubelet:
            raise UserError(
                f"encoders: vjepa2.frames is {frames}, expected a multiple of {tubelet}, the "
                "tubelet_size in the checkpoint's config.json"
            )
        self.video = model.encoder
        self.frames = frames
        patch = square(config.patch_size, "patch_size")
        # Positions are counted in the grid that the config tells.
        for block in self.video.layer:
            block.attention.grid_size = size // patch
        self.config = SimpleNamespace(
            model_type=config.model_type,
            hidden_size=config.hidden_size,
            patch_size=patch,
            image_size=config.crop_size,
            num_channels=config.in_chans,
            per_patch=frames // tubelet,
        )

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Return tokens [b, t, d] in the order (frame, row, column) of pixels [b, 3, h, w]."""
        clip_bfchw = pixel_values[:, None].expand(-1, self.frames, -1, -1, -1)
        tokens: Tensor = self.video(pixel_values_videos=clip_bfchw).last_hidden_state
        return tokens


def _shown(model: Any, own: Vjepa2Settings | None, size: int) -> Clip:
    return Clip(model, (own or Vjepa2Settings()).frames, size)


def _inputs(pixels_bchw: Tensor, patch: int) -> Any:
    return plain_inputs(pixels_bchw, patch)


FAMILY = VideoFamily(
    model_types=("vjepa2",),
    prefix_tokens=lambda tower: 0,
    norm=lambda tower: tower.video.layernorm,
    resample=2,
    # A function of its own: the model by itself takes videos.
    inputs=_inputs,
    tower=lambda model: getattr(model, "encoder", model),
    blocks=lambda tower: tower.video.layer,
    shown=_shown,
)
