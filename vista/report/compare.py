"""Projectors trained with the SAE term against their twins without: same encoder, LLM and seed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vista.metrics.figure import Figure
from vista.report.table import LongTable

BASELINE = 0.0


@dataclass(frozen=True)
class Pair:
    """Figures of a projector trained with the term and of its twin trained without.

    Each pair of values is (without, with), None where it was not measured.

    Attributes:
        encoder, llm, sae_weight, seed: The point of the sweep.
        layers: Layers on which the SAE error of both was measured.
        mse: SAE error on image tokens, mean over the layers.
        fvu: Fraction of variance unexplained, likewise.
        l0: Active latents a token, likewise.
        cross_entropy: Cross-entropy of captions.
    """

    encoder: str
    llm: str
    sae_weight: float
    seed: int
    layers: tuple[int, ...]
    mse: tuple[float, float] | None
    fvu: tuple[float, float] | None
    l0: tuple[float, float] | None
    cross_entropy: tuple[float, float] | None

    @property
    def error_ratio(self) -> float | None:
        """How many times smaller the SAE error is with the term; None if unknown or no error."""
        if self.mse is None or self.mse[1] == 0:
            return None
        return self.mse[0] / self.mse[1]

    @property
    def cross_entropy_increase(self) -> float | None:
        """Relative increase of the caption cross-entropy with the term."""
        if self.cross_entropy is None or self.cross_entropy[0] == 0:
            return None
        return self.cross_entropy[1] / self.cross_entropy[0] - 1.0


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
    compared = []
    for encoder, llm, weight, seed in sorted(points):
        if weight == BASELINE or (encoder, llm, BASELINE, seed) not in points:
            continue
        point = {"encoder": encoder, "llm": llm, "seed": seed}
        layers, mse = _layer_means(table, "mse", weight, point)
        without, with_term = (
            _one(table.select("caption_cross_entropy", sae_weight=side, **point))
            for side in (BASELINE, weight)
        )
        compared.append(
            Pair(
                encoder=encoder,
                llm=llm,
                sae_weight=weight,
                seed=seed,
                layers=layers,
                mse=mse,
                fvu=_layer_means(table, "fvu", weight, point)[1],
                l0=_layer_means(table, "l0", weight, point)[1],
                cross_entropy=None
                if without is None or with_term is None
                else (without, with_term),
            )
        )
    return compared


def _layer_means(
    table: LongTable, metric: str, weight: float, point: Mapping[str, Any]
) -> tuple[tuple[int, ...], tuple[float, float] | None]:
    """Return the layers that both sides have, and the means over them (without, with)."""
    by_layer = []
    for side in (BASELINE, weight):
        figures = table.select(metric, sae_weight=side, token_kind="image", **point)
        by_layer.append(
            {f.layer: f.value for f in figures if f.layer is not None and f.value is not None}
        )
    layers = tuple(sorted(set(by_layer[0]) & set(by_layer[1])))
    if not layers:
        return layers, None
    without, with_term = (sum(side[x] for x in layers) / len(layers) for side in by_layer)
    return layers, (without, with_term)


def _one(figures: list[Figure]) -> float | None:
    """Return the value of a figure; None if there is none."""
    return figures[0].value if len(figures) == 1 else None
