"""Figures of captions behind words: cross-entropies, and what words cost.

Suffix: b images.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from vista.metrics.bootstrap import bootstrap_ratio
from vista.metrics.figure import Figure
from vista.metrics.result import Estimate, MetricResult, estimate

FloatArray = NDArray[np.float64]


class PseudoImagesResult(MetricResult):
    """Cross-entropies of the reference answers, in nats a token."""

    visual: Estimate = Field(
        description="Behind the image's visual tokens. Chance: behind those of another image."
    )
    words: Estimate = Field(
        description="Behind the expected word embeddings of its visual tokens. Chance: behind "
        "those of another image."
    )
    cost: Estimate = Field(description="words - visual, paired over images.")

    def figures(self) -> list[Figure]:
        """Return the three figures."""
        name = "pseudo_image_cross_entropy"
        return [
            self.visual.figure(name, of="visual tokens"),
            self.words.figure(name, of="expected words"),
            self.cost.figure("pseudo_image_cost"),
        ]


def pseudo_image_figures(
    visual_b: FloatArray,
    words_b: FloatArray,
    others: tuple[FloatArray, FloatArray] | None,
    tokens_b: NDArray[np.int64],
    *,
    seed: int,
    resamples: int,
    level: float,
) -> PseudoImagesResult:
    """Return the figures, with intervals over images.

    Args:
        visual_b: Nats of each image's answer behind its visual tokens.
        words_b: The same behind their expected words.
        others: Both behind the tokens of another image; None where there is one image alone.
        tokens_b: Tokens of each answer, 1 or more.
        seed: Seed of the bootstrap.
        resamples: Number of resamples.
        level: Coverage of the intervals.
    """
    tokens = tokens_b.astype(np.float64)

    def ratio(nats_b: FloatArray, other_b: FloatArray | None = None) -> Estimate:
        interval = bootstrap_ratio(nats_b, tokens, seed, resamples, level)
        chance = None if other_b is None else float(other_b.sum() / tokens.sum())
        return estimate(interval, len(tokens), chance)

    other_visual_b, other_words_b = others or (None, None)
    return PseudoImagesResult(
        visual=ratio(visual_b, other_visual_b),
        words=ratio(words_b, other_words_b),
        cost=ratio(words_b - visual_b),
    )
