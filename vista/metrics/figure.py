"""One row of the long table: the only form in which a figure goes from a metric to the report."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import Any

# Of the table's columns and of what they hold; 1 had facts in the names of metrics, 2 no controls.
TABLE_VERSION = "3"
# Token kinds of a figure. NO_TOKENS stands where a figure is not about tokens (a caption).
TOKEN_KINDS = ("image", "text", "control")
NO_TOKENS = ""


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured figure. A column that does not apply is None.

    A metric gives what it measured; the report adds the point of the sweep.

    Attributes:
        metric: Name of the figure, such as ``fvu`` or ``matching_rate``.
        of: What it is a figure of, where a metric measures several: a score, a probe, a judge, a
            kind of dictionary, the truth that a map is compared with, a task; the masks that a
            figure is without (unmasked), or the bound of a mask as text; the second of two
            dictionaries that are compared.
        set: The images or items that it is measured on, where they are not those of the run; a
            group of the run's images (seen, held_out); or the patches that are edited.
        k: Number of latents, words or dimensions that it is measured at.
        encoder, llm, sae_weight, seed: The point of the sweep.
        control: What was changed on purpose at that point (docs/controls.md); None: nothing.
        method: Where an intervention's directions come from, the vision SAE, the readout of words
            (logit_lens), what the maps of referring segmentation are made from, other than the
            labelled latents, or the weight of the loss that gated cross-attention was trained with,
            as text. Of a figure about two judges, which belongs to no such place, and of a
            difference between two encoders: the second one. Of a gain of referring segmentation:
            what latents are compared with.
        layer: Block after which the residual stream was read, counted from 0, and -1 for the
            stream that enters block 0; None where the figure belongs to no single layer.
        token_kind: ``image``, ``text``, ``control``, or "" where no tokens are concerned.
        value: The figure, in the unit that the metric's result documents; None if undefined.
        ci_low: Lower end of its interval over images: of a rate that of `vista.metrics.rates`, of
            other figures that of a bootstrap; None where images are too few.
        ci_high: Upper end of that interval, or None (also where it is unbounded).
        chance: Level of the same figure without the effect (shuffled images, covered share of the
            patches), or None where there is no such level.
        n: Number of things that the figure is a mean over (images, tokens, pairs, latents).
        stage: The stage that measured it; it groups figures and is no column of the table.
    """

    metric: str
    of: str | None = None
    set: str | None = None
    k: int | None = None
    encoder: str | None = None
    llm: str | None = None
    sae_weight: float | None = None
    seed: int | None = None
    control: str | None = None
    method: str | None = None
    layer: int | None = None
    token_kind: str = NO_TOKENS
    value: float | None = None
    ci_low: float | None = None
    ci_high: float | None = None
    chance: float | None = None
    n: int = 0
    stage: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        if self.token_kind not in (*TOKEN_KINDS, NO_TOKENS):
            raise ValueError(f"unknown token kind {self.token_kind!r}")
        if not self.metric or self.n < 0:
            raise ValueError(f"a figure needs a metric name and n >= 0: {self}")
        if self.sae_weight is not None:
            object.__setattr__(self, "sae_weight", float(self.sae_weight))
        for name in ("value", "ci_low", "ci_high", "chance"):
            object.__setattr__(self, name, finite_or_none(getattr(self, name)))

    @property
    def key(self) -> tuple[Any, ...]:
        """What tells this figure from all others: the columns before its value."""
        return tuple(getattr(self, name) for name in KEY)

    def record(self) -> dict[str, Any]:
        """Return the columns of the table."""
        return {name: getattr(self, name) for name in COLUMNS}


# The columns of the table with their types.
COLUMNS = {
    column.name: str(column.type).removesuffix(" | None")
    for column in fields(Figure)
    if column.name != "stage"
}
KEY = tuple(name for name in COLUMNS if name not in ("value", "ci_low", "ci_high", "chance", "n"))


def finite_or_none(value: float | None) -> float | None:
    """Return `value` as a plain float, and None for NaN and infinities: JSON has neither."""
    if value is None or not math.isfinite(value):
        return None
    return float(value)
