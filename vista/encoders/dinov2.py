"""Dinov2, with and without registers: class token, then registers, then patches."""

from __future__ import annotations

from vista.encoders.registry import EncoderFamily

FAMILY = EncoderFamily(
    tower=lambda model: model,
    blocks=lambda tower: tower.encoder.layer,
    norm=lambda tower: tower.layernorm,
    # Only Dinov2WithRegisters has the key.
    prefix_tokens=lambda config: 1 + getattr(config, "num_register_tokens", 0),
)
