"""SigLIP's vision tower: patches alone, without a class token; the post-norm is on all of them.

SigLIP 2 checkpoints of a fixed resolution are this model too.
"""

from __future__ import annotations

from vista.encoders.registry import EncoderFamily

FAMILY = EncoderFamily(
    model_types=("siglip", "siglip_vision_model"),
    prefix_tokens=lambda tower: 0,
    norm=lambda tower: tower.post_layernorm,
    resample=3,
)
