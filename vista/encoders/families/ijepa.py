"""I-JEPA: patches alone, without a class token; the norm is on all of them."""

from __future__ import annotations

from vista.encoders.registry import EncoderFamily

FAMILY = EncoderFamily(
    model_types=("ijepa",),
    prefix_tokens=lambda tower: 0,
    norm=lambda tower: tower.layernorm,
    resample=2,
)
