"""With the SAE term against without it: same encoder, same LLM, same seed."""

from __future__ import annotations

from dataclasses import dataclass

from vista.metrics.figure import Figure
from vista.report.table import LongTable

BASELINE = 0.0


@dataclass(frozen=True)
class Pair:
    """One projector trained with the term and its twin trained without, None where unmeasured.

    `mse` is the SAE error on image tokens, a mean over the layers that both have; `fvu` and `l0`
    likewise. Each pair of values is (without, with).
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
        """How many times smaller the SAE error is with the term."""
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
    found = []
    for encoder, llm, weight, seed in sorted(points):
        if weight == BASELINE or (encoder, llm, BASELINE, seed) not in points:
            continue
        layers, mse = _layer_means(table, "mse", encoder, llm, weight, seed)
        entropy = [
            _one(
                table.select(
                    "caption_cross_entropy", encoder=encoder, llm=llm, sae_weight=each, seed=seed
                )
            )
            for each in (BASELINE, weight)
        ]
        without, with_term = entropy
        found.append(
            Pair(
                encoder=encoder,
                llm=llm,
                sae_weight=weight,
                seed=seed,
                layers=layers,
                mse=mse,
                fvu=_layer_means(table, "fvu", encoder, llm, weight, seed)[1],
                l0=_layer_means(table, "l0", encoder, llm, weight, seed)[1],
                cross_entropy=None
                if without is None or with_term is None
                else (without, with_term),
            )
        )
    return found


def _layer_means(
    table: LongTable, metric: str, encoder: str, llm: str, weight: float, seed: int
) -> tuple[tuple[int, ...], tuple[float, float] | None]:
    by_layer = []
    for each in (BASELINE, weight):
        figures = table.select(
            metric, encoder=encoder, llm=llm, sae_weight=each, seed=seed, token_kind="image"
        )
        by_layer.append(
            {f.layer: f.value for f in figures if f.layer is not None and f.value is not None}
        )
    layers = tuple(sorted(set(by_layer[0]) & set(by_layer[1])))
    if not layers:
        return layers, None
    without, with_term = (sum(side[x] for x in layers) / len(layers) for side in by_layer)
    return layers, (without, with_term)


def _one(figures: list[Figure]) -> float | None:
    return figures[0].value if len(figures) == 1 else None
