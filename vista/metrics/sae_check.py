"""Figures of an SAE's check: how well it reconstructs held-out tokens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vista.metrics.figure import NO_TOKENS, Figure

# Names of the figures by the fields of `vista.sae.check.SaeCheck`, for SAEs of language models on
# text and for vision SAEs on images.
TEXT_FIGURES = {
    "mse": "sae_text_mse",
    "fvu": "sae_text_fvu",
    "explained_variance": "sae_text_explained_variance",
    "l0": "sae_text_l0",
    "dead_share": "sae_text_dead_share",
    "normal_fvu": "sae_text_normal_fvu",
    "massive_variance": "sae_text_massive_variance",
}
VISION_FIGURES = {
    "mse": "vision_sae_mse",
    "fvu": "vision_sae_fvu",
    "explained_variance": "vision_sae_explained_variance",
    "l0": "vision_sae_l0",
    "dead_share": "vision_sae_dead_share",
}
_CHANCE = {"fvu": 1.0, "normal_fvu": 1.0, "explained_variance": 0.0}  # the mean token
_COUNTS = {"dead_share": "d_sae", "normal_fvu": "normal_tokens"}


def check_figures(
    check: Mapping[str, Any],
    names: Mapping[str, str],
    layer: int | None,
    token_kind: str = NO_TOKENS,
) -> list[Figure]:
    """Return the figures of a check.

    n is the number of tokens, for the dead share the number of latents. A field that a check of an
    earlier version does not have gives no figure.

    Args:
        check: The fields of `vista.sae.check.SaeCheck`.
        names: `TEXT_FIGURES` or `VISION_FIGURES`.
        layer: Block whose output the SAE reads, None for combined features.
        token_kind: As of `Figure`.
    """
    return [
        Figure(
            name,
            layer=layer,
            token_kind=token_kind,
            value=check[field],
            chance=_CHANCE.get(field),
            n=check[_COUNTS.get(field, "tokens")],
        )
        for field, name in names.items()
        if field in check
    ]
