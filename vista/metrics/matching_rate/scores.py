"""The judge's verdicts on ranked latents, and the matching rate of the first k of them.

Suffixes: b images, n ranked latents of an image, l layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from vista.config.metrics import Without
from vista.metrics.bootstrap import bootstrap
from vista.metrics.figure import Figure
from vista.metrics.rates import rate_interval
from vista.metrics.result import Estimate, ResultPart, estimate
from vista.metrics.shuffled import Level

FloatArray = NDArray[np.float64]
VerdictArray = NDArray[np.int8]
Evidence = Literal["objects", "image"]


class TopK(ResultPart):
    """Figures over the k strongest distinct latents of each image."""

    k: int = Field(description="Latents of an image that are judged.")
    matching: Estimate = Field(
        description="Share of images in which a label names an object or, for evidence `image`, "
        "something that the judge sees; chance is the shuffled-image level: the labels judged "
        "against all other images' objects, or shown with one other image."
    )
    gain: Estimate = Field(description="Matching rate minus its shuffled-image level, paired.")
    ratio: Estimate = Field(
        description="Matching rate / shuffled-image level, paired; null if that level is 0."
    )
    recall: Estimate | None = Field(
        description="Share of an image's object categories that the labels name, mean over "
        "images; chance as for matching. Null for evidence `image`: it knows no list of objects."
    )
    n_unanswered: int = Field(
        description="Images left out (on an average over layers: images and layers) because the "
        "judge that is shown them left a label open and accepted none. Had they counted as no "
        "match, the rate would be lower."
    )
    n_unanswered_shuffled: int = Field(
        description="The same for the shuffled-image level, which leaves them out too."
    )

    def figures(
        self,
        layer: int | None,
        n_judged: int,
        group: str | None = None,
        of: Without | None = None,
    ) -> list[Figure]:
        """Return the figures at this k.

        Args:
            layer: The layer that they are measured on; None: averaged over layers.
            n_judged: Images (averaged: images and layers) that were put to the judge.
            group: The group of images that they are measured on; None: all.
            of: The masks that the ranking did without; None: it had both.
        """
        figures = [
            ("matching_rate", self.matching),
            ("matching_gain", self.gain),
            ("matching_ratio", self.ratio),
        ]
        if self.recall is not None:
            figures.append(("object_recall", self.recall))
        elif n_judged:
            # Chance: the share left open where the labels were shown with another image.
            unanswered = Estimate(
                value=self.n_unanswered / n_judged,
                ci_low=None,
                ci_high=None,
                chance=self.n_unanswered_shuffled / n_judged,
                n=n_judged,
            )
            figures.append(("matching_unanswered", unanswered))
        return [
            figure.figure(metric, layer, "image", of=of, set=group, k=self.k)
            for metric, figure in figures
        ]


@dataclass(frozen=True)
class LayerScores:
    """Verdicts of a judge on the ranked latents of one layer.

    Attributes:
        named_bn: Whether the n-th label names something in the image: YES, NO or UNANSWERED of
            `vista.judges`.
        matching: k -> whether one of the first k labels does, 1 or 0; NaN where unknown.
        recall: k -> share of the image's categories that they name; empty without categories.
    """

    named_bn: VerdictArray
    matching: dict[int, Level]
    recall: dict[int, Level]

    def of(self, rows: NDArray[np.int64]) -> LayerScores:
        """Return the scores of some images, whose levels are drawn already."""
        return LayerScores(
            self.named_bn[rows],
            {k: level.of(rows) for k, level in self.matching.items()},
            {k: level.of(rows) for k, level in self.recall.items()},
        )


@dataclass(frozen=True)
class Scores:
    """Verdicts of a judge by layer, and the evidence that labels were judged against.

    `groups` has the layers' scores of each group of the images, if there are any.
    """

    evidence: Evidence
    n_images: int
    n_categories: int | None
    layers: dict[int, LayerScores]
    groups: dict[str, dict[int, LayerScores]] = field(default_factory=dict)


def summarise(k: int, layers: Sequence[LayerScores], draws: tuple[int, int, float]) -> TopK:
    """Return the figures at one k, averaged over layers.

    Args:
        k: Number of latents, one of those that were scored.
        layers: The verdicts on each layer.
        draws: Seed, number of resamples and level of the bootstrap.
    """
    matching = [scores.matching[k] for scores in layers]
    recall = [scores.recall[k] for scores in layers if scores.recall]
    # Sum over layers and number of layers with an answer, with the image's own labels (columns 0
    # and 1) and with those of other images (2 and 3).
    pair_b4 = np.concatenate(
        [
            _answered([level.own_b for level in matching]),
            _answered([level.shuffled_b for level in matching]),
        ],
        axis=1,
    )
    figure = _mean(matching, draws[2])
    gain = bootstrap(pair_b4, lambda m: m[:, 0] / m[:, 1] - m[:, 2] / m[:, 3], *draws)
    # The projected level of a resample can dip below 0 where hardly anything matches.
    ratio = bootstrap(
        pair_b4, lambda m: m[:, 0] / m[:, 1] / np.maximum(m[:, 2] / m[:, 3], 0.0), *draws
    )
    return TopK(
        k=k,
        matching=figure,
        gain=estimate(gain, figure.n),
        ratio=estimate(ratio, figure.n),
        recall=_mean(recall, draws[2]) if recall else None,
        n_unanswered=sum(int(np.isnan(level.own_b).sum()) for level in matching),
        n_unanswered_shuffled=sum(int(np.isnan(level.shuffled_b).sum()) for level in matching),
    )


def _mean(levels: Sequence[Level], coverage: float) -> Estimate:
    """Return the mean over images and layers with an answer, with its shuffled level."""
    own_b2 = _answered([level.own_b for level in levels])
    total, known = _answered([level.shuffled_b for level in levels]).sum(axis=0)
    return estimate(
        rate_interval(own_b2[:, 0], own_b2[:, 1], coverage),
        int((own_b2[:, 1] > 0).sum()),
        total / known if known else None,
    )


def _answered(layers: Sequence[FloatArray]) -> FloatArray:
    """Return each image's sum over layers and the number of layers behind it, [b, 2]."""
    values_lb = np.stack(layers)
    return np.stack([np.nansum(values_lb, axis=0), (~np.isnan(values_lb)).sum(axis=0)], axis=1)


def difference(
    k: int,
    ours: Sequence[LayerScores],
    theirs: Sequence[LayerScores],
    draws: tuple[int, int, float],
) -> Estimate:
    """Return the matching rate of `ours` minus that of `theirs`, averaged over layers and paired.

    Args:
        k: Number of latents, one of those that were scored.
        ours: Verdicts on each layer.
        theirs: Verdicts on the same layers and images.
        draws: Seed, number of resamples and level of the bootstrap.
    """
    pair_b4 = np.concatenate(
        [_answered([scores.matching[k].own_b for scores in side]) for side in (ours, theirs)],
        axis=1,
    )
    gap = bootstrap(pair_b4, lambda m: m[:, 0] / m[:, 1] - m[:, 2] / m[:, 3], *draws)
    return estimate(gap, int((pair_b4[:, [1, 3]] > 0).all(axis=1).sum()))
