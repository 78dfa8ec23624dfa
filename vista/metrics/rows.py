"""One row of the long table: the only form in which a metric hands a figure to the report."""

from __future__ import annotations

import math
from dataclasses import dataclass

# Token kinds of a row. NO_TOKENS stands where a figure is not about tokens (a caption, a latent).
TOKEN_KINDS = ("image", "text", "control")
NO_TOKENS = ""


@dataclass(frozen=True, slots=True)
class Row:
    """One measured figure.

    Attributes:
        metric: Name of the figure, such as ``fvu`` or ``matching_rate@3``.
        layer: Block after which the residual stream was read, counted from 0; None where the
            figure belongs to no single layer.
        token_kind: ``image``, ``text``, ``control``, or "" where no tokens are concerned.
        value: The figure, in the unit that the metric's result documents. NaN if it is undefined.
        ci_low: Lower end of its bootstrap interval, or None.
        ci_high: Upper end of its bootstrap interval, or None (also where it is unbounded).
        chance: The level that the same figure has without the effect (shuffled images, covered
            share of the patches, ...), or None where there is no such level.
        n: Number of things that the figure is a mean over (images, tokens, pairs, latents).
    """

    metric: str
    layer: int | None
    token_kind: str
    value: float
    ci_low: float | None = None
    ci_high: float | None = None
    chance: float | None = None
    n: int = 0

    def __post_init__(self) -> None:
        if self.token_kind not in (*TOKEN_KINDS, NO_TOKENS):
            raise ValueError(f"unknown token kind {self.token_kind!r}")
        if not self.metric or self.n < 0:
            raise ValueError(f"a row needs a metric name and n >= 0: {self}")


def finite_or_none(value: float | None) -> float | None:
    """Return `value` as a plain float, and None for NaN and infinities: JSON has neither."""
    if value is None or not math.isfinite(value):
        return None
    return float(value)
