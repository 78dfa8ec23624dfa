"""DINOv3's ViT: class token, then registers, then patches; rotary positions of any grid."""

from __future__ import annotations

from vista.encoders.registry import EncoderFamily

FAMILY = EncoderFamily(
    model_types=("dinov3_vit",),
    prefix_tokens=lambda tower: 1 + int(tower.config.num_register_tokens),
    norm=lambda tower: tower.norm,
    resample=2,
)
