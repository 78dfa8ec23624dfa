"""Vision transformers whose config calls them tiny_vit: a class token before the patches."""

from vista.encoders.registry import EncoderFamily

FAMILY = EncoderFamily(
    model_types=("tiny_vit",),
    prefix_tokens=lambda tower: 1,
    norm=lambda tower: tower.layernorm,
    resample=3,
)
