"""Figures of an SAE's gate: how well it holds held-out tokens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vista.metrics.figure import NO_TOKENS, Figure

_CHANCE = {"fvu": 1.0, "explained_variance": 0.0}  # of predicting the mean token


def check_figures(
    check: Mapping[str, Any], prefix: str, layer: int | None, token_kind: str = NO_TOKENS
) -> list[Figure]:
    """The figures of a check (the fields of `vista.sae.check.SaeCheck`), named
    `prefix`_figure; n is the number of tokens, of the dead share that of latents."""
    return [
        Figure(
            f"{prefix}_{name}",
            layer=layer,
            token_kind=token_kind,
            value=check[name],
            chance=_CHANCE.get(name),
            n=check["d_sae"] if name == "dead_share" else check["tokens"],
        )
        for name in ("mse", "fvu", "explained_variance", "l0", "dead_share")
    ]
