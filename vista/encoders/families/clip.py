"""CLIP's vision tower: class token, then patches; the post-norm is for the class token alone."""

from __future__ import annotations

from vista.encoders.registry import EncoderFamily

FAMILY = EncoderFamily(
    model_types=("clip", "clip_vision_model"),
    prefix_tokens=lambda tower: 1,
    norm=lambda tower: None,
    resample=3,
)
