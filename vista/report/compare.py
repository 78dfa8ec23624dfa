"""Projectors trained with the SAE term against their twins without: same encoder, LLM and seed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vista.metrics.figure import Figure
from vista.report.table import LongTable, OverSeeds

BASELINE = 0.0

Twins = tuple[float, float]  # without the term, with it


@dataclass(frozen=True)
class Pair:
    """Figures of a projector trained with the term and of its twin trained without.

    Each pair of values is (without, with), None where it was not measured. Figures of tokens are
    means over layers.

    Attributes:
        encoder, llm, sae_weight, seed: The point of the sweep.
        layers: Layers on which the FVU of both was measured.
        mse: SAE error on image tokens.
        fvu: Fraction of their variance that is unexplained.
        l0: Active latents an image token.
        text_l0: Active latents a token of the text control.
        fired_share: Share of the dictionary that fires on any image token.
        variance: Variance of image tokens / that of the text control.
        image_variance: Variance of image tokens between images / variance of the text control.
        loss_recovered: Share of the cost of mean ablation that the SAE's reconstruction recovers.
        cross_entropy: Cross-entropy of captions.
        content: Cross-entropy of captions behind the visual tokens of another image - behind
            their own: what the tokens tell of their image.
    """

    encoder: str
    llm: str
    sae_weight: float
    seed: int
    layers: tuple[int, ...]
    mse: Twins | None
    fvu: Twins | None
    l0: Twins | None
    text_l0: Twins | None
    fired_share: Twins | None
    variance: Twins | None
    image_variance: Twins | None
    loss_recovered: Twins | None
    cross_entropy: Twins | None
    content: Twins | None = None

    @property
    def point(self) -> tuple[str, str, float, int]:
        """Encoder, LLM, weight and seed."""
        return self.encoder, self.llm, self.sae_weight, self.seed

    @property
    def fvu_ratio(self) -> float | None:
        """How many times smaller FVU is with the term; None if unknown or if nothing is left."""
        if self.fvu is None or self.fvu[1] == 0:
            return None
        return self.fvu[0] / self.fvu[1]

    @property
    def cross_entropy_increase(self) -> float | None:
        """Relative increase of the caption cross-entropy with the term."""
        if self.cross_entropy is None or self.cross_entropy[0] == 0:
            return None
        return self.cross_entropy[1] / self.cross_entropy[0] - 1.0

    @property
    def content_ratio(self) -> float | None:
        """What visual tokens tell captions with the term / without; None where those without tell
        nothing."""
        if self.content is None or self.content[0] <= 0:
            return None
        return self.content[1] / self.content[0]

    @property
    def l0_ratio(self) -> float | None:
        """L0 with the term against that of text: the larger of the two / the smaller, from 1 on.

        Infinite where one of them is 0.
        """
        if self.l0 is None or self.text_l0 is None:
            return None
        small, large = sorted((self.l0[1], self.text_l0[1]))
        return large / small if small > 0 else float("inf")


def pairs(table: LongTable) -> list[Pair]:
    """Return one entry for each encoder, LLM, weight above 0 and seed that has a baseline."""
    points = {
        (f.encoder, f.llm, f.sae_weight, f.seed)
        for f in table.figures
        if f.encoder is not None
        and f.llm is not None
        and f.sae_weight is not None
        and f.seed is not None
    }
    return [
        _pair(table, encoder, llm, weight, seed)
        for encoder, llm, weight, seed in sorted(points)
        if weight != BASELINE and (encoder, llm, BASELINE, seed) in points
    ]


def _pair(table: LongTable, encoder: str, llm: str, weight: float, seed: int) -> Pair:
    twins = [
        {"encoder": encoder, "llm": llm, "seed": seed, "sae_weight": side}
        for side in (BASELINE, weight)
    ]

    def mean(
        metric: str, kind: str = "image", over: str | None = None, of: str | None = None
    ) -> Twins | None:
        """Return the means over the layers that both sides have; `over`: of the quotient by a
        figure of the text control."""
        sides = [_by_layer(table, metric, kind, twin | {"of": of}) for twin in twins]
        if over is not None:
            texts = [_by_layer(table, over, "control", twin) for twin in twins]
            sides = [
                {x: side[x] / text[x] for x in side if text.get(x)}
                for side, text in zip(sides, texts, strict=True)
            ]
        layers = set(sides[0]) & set(sides[1])
        if not layers:
            return None
        without, with_term = (sum(side[x] for x in sorted(layers)) / len(layers) for side in sides)
        return without, with_term

    fvus = [_by_layer(table, "fvu", "image", twin) for twin in twins]
    losses = [_one(table.select("caption_cross_entropy", **twin)) for twin in twins]
    without, with_term = losses
    return Pair(
        encoder=encoder,
        llm=llm,
        sae_weight=weight,
        seed=seed,
        layers=tuple(sorted(set(fvus[0]) & set(fvus[1]))),
        mse=mean("mse"),
        fvu=mean("fvu"),
        l0=mean("l0"),
        text_l0=mean("l0", "control"),
        fired_share=mean("fired_share"),
        variance=mean("variance", over="variance"),
        image_variance=mean("image_variance", over="variance"),
        loss_recovered=mean("spliced_loss_recovered", of="mean"),
        cross_entropy=None if without is None or with_term is None else (without, with_term),
        content=_content([table.select("caption_cross_entropy", **twin) for twin in twins]),
    )


def _content(sides: list[list[Figure]]) -> Twins | None:
    """Return another image's cross-entropy - the own, without the term and with it."""
    gains = [
        figures[0].chance - figures[0].value
        for figures in sides
        if len(figures) == 1 and figures[0].chance is not None and figures[0].value is not None
    ]
    return (gains[0], gains[1]) if len(gains) == 2 else None


def _by_layer(
    table: LongTable, metric: str, kind: str, point: Mapping[str, Any]
) -> dict[int, float]:
    """Return a figure of a token kind by layer, where it has a value."""
    figures = table.select(metric, token_kind=kind, **point)
    return {f.layer: f.value for f in figures if f.layer is not None and f.value is not None}


def _one(figures: list[Figure]) -> float | None:
    """Return the value of a figure; None if there is none."""
    return figures[0].value if len(figures) == 1 else None


def gain_factor(with_term: OverSeeds, without: OverSeeds) -> float | None:
    """Return a gain over chance with the term as a multiple of that without.

    None unless the interval of the gain without the term is above 0: a multiple of what may be
    nothing says nothing. Of several seeds the lowest end counts.
    """
    if without.low is None or without.low <= 0:
        return None
    return with_term.mean / without.mean
