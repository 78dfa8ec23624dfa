"""Dinov2, with and without registers: class token, then registers, then patches."""

from __future__ import annotations

from vista.encoders.registry import EncoderFamily

FAMILY = EncoderFamily(
    model_types=("dinov2", "dinov2_with_registers"),
    # Only Dinov2WithRegisters has the key.
    prefix_tokens=lambda tower: 1 + getattr(tower.config, "num_register_tokens", 0),
    norm=lambda tower: tower.layernorm,
    resample=3,
)
