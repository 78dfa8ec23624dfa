"""CLIP's vision tower: class token, then patches; the post-norm is for the class token alone."""

from __future__ import annotations

from vista.encoders.registry import EncoderFamily

FAMILY = EncoderFamily(
    tower=lambda model: getattr(model, "vision_model", model),
    blocks=lambda tower: tower.encoder.layers,
    norm=lambda tower: None,
    prefix_tokens=lambda config: 1,
)
