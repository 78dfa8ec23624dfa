"""SigLIP's vision tower: patches alone, without a class token; the post-norm is on all of them."""

from __future__ import annotations

from vista.encoders.registry import EncoderFamily

FAMILY = EncoderFamily(
    tower=lambda model: getattr(model, "vision_model", model),
    blocks=lambda tower: tower.encoder.layers,
    norm=lambda tower: tower.post_layernorm,
    prefix_tokens=lambda config: 0,
)
