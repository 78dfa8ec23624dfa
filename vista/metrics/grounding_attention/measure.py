"""Figures of attention maps: do they lie on the object, and do they tell the right image?

A caption stands once behind the visual tokens of its own image and once behind those of another. A
score tells the right image as far as it is larger behind the own one: more attention to the image,
attention that is less spread over its patches, or a smaller cross-entropy.

Suffixes: i pair of image and object, b caption, r reading, j caption behind another image.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from vista.metrics.bootstrap import (
    bootstrap_mean,
    bootstrap_ratio,
    percentile_interval,
    resample_means,
)
from vista.metrics.figure import Figure
from vista.metrics.grounding_attention.maps import MapValues, Readings
from vista.metrics.ranking import FloatArray
from vista.metrics.rates import rate_interval
from vista.metrics.result import Estimate, MetricResult, ResultPart, estimate

# word: the tokens of the word themselves. before: the token that predicts the first of them.
Position = Literal["word", "before"]
POSITIONS: tuple[Position, Position] = ("word", "before")
Score = Literal["attention", "focus", "attention_before", "focus_before", "cross_entropy"]
_SHUFFLED = "shuffled_masks"


class Grounding(ResultPart):
    """How well attention from one position marks the object, over pairs of image and object."""

    position: Position = Field(
        description="word: the tokens of the object's word, mean; before: the token before it, "
        "which predicts it."
    )
    layer: int | None = Field(description="Block of the attention; null: mean over all blocks.")
    head: int | None = Field(None, description="The one head; null: mean over the heads.")
    on_object: Estimate = Field(
        description="Share of the attention on visual tokens that lies on the object's patches; "
        "chance: the object's share of the patches."
    )
    shuffled_on_object: Estimate = Field(
        description="The same with the objects of all other images on the map, mean: what a map "
        "gains by looking where objects mostly are."
    )
    auroc: Estimate = Field(
        description="Area under the ROC curve of the attention over patches; chance: .5."
    )
    shuffled_auroc: Estimate = Field(description="The same with the objects of other images.")
    pointing: Estimate = Field(
        description="Share of the pairs whose most attended patch lies on the object; chance: the "
        "object's share of the patches."
    )
    on_image: Estimate = Field(
        description="Attention that goes to visual tokens at all, of 1; chance: attention that is "
        "spread evenly over all tokens so far."
    )

    def figures(self) -> Iterator[Figure]:
        """Yield the figures; those of a single head have names of their own."""
        kind = "attention" if self.head is None else "head_attention"
        for name, value, items in (
            ("on_object", self.on_object, None),
            ("on_object", self.shuffled_on_object, _SHUFFLED),
            ("auroc", self.auroc, None),
            ("auroc", self.shuffled_auroc, _SHUFFLED),
            ("pointing", self.pointing, None),
            ("on_image", self.on_image, None),
        ):
            yield value.figure(f"{kind}_{name}", self.layer, "text", of=self.position, set=items)


class RightImage(ResultPart):
    """How well one score of a caption tells its own image from another one, over captions."""

    score: Score = Field(
        description="attention: attention of the objects' words to visual tokens; focus: how "
        "little it is spread over them (minus its entropy); with _before: of the tokens before the "
        "words; cross_entropy: minus the nats a token of the caption."
    )
    layer: int | None = Field(description="Block of the attention; null: mean over all blocks.")
    head: int | None = Field(None, description="The one head; null: mean over the heads.")
    auroc: Estimate = Field(
        description="Area under the ROC curve of the score over captions behind their own and "
        "behind another image, one threshold for all; chance: .5."
    )
    choice: Estimate = Field(
        description="Share of the captions whose score is larger behind their own image, ties "
        "half: of the cross-entropy, the sign of its difference; chance: .5."
    )

    def figures(self) -> Iterator[Figure]:
        """Yield the figures; those of a single head have names of their own."""
        kind = "right_image" if self.head is None else "head_right_image"
        yield self.auroc.figure(f"{kind}_auroc", self.layer, "text", of=self.score)
        yield self.choice.figure(f"{kind}_choice", self.layer, "text", of=self.score)


class GroundingAttentionResult(MetricResult):
    """Grounding of words, and what tells the right image."""

    region: Literal["mask", "box"] = Field(description="What the object's patches are.")
    n_images: int = Field(description="Images whose reference answer names an object they show.")
    n_pairs: int = Field(
        description="(image, object) pairs: the answer's first mention of each class whose patches "
        "are some and not all."
    )
    n_fit_images: int = Field(description="Images that the best head was chosen on.")
    n_layers: int = Field(description="Blocks of the language model.")
    n_heads: int = Field(description="Heads of a block.")
    cross_entropy: Estimate = Field(
        description="Nats a token of these captions, mean over captions; chance: behind another "
        "image."
    )
    grounding: list[Grounding] = Field(
        description="By position: mean over heads of all blocks and of each block, then the head "
        "with the largest AUROC on the other split."
    )
    right_image: list[RightImage] = Field(
        description="By score, likewise; the head with the largest AUROC of the score on the "
        "other split. The cross-entropy has no layers. Empty with fewer than two images."
    )

    def figures(self) -> list[Figure]:
        """Return all figures, in the order of the result."""
        return [
            self.cross_entropy.figure("grounding_cross_entropy", None, "text"),
            *(row for part in self.grounding for row in part.figures()),
            *(row for score in self.right_image for row in score.figures()),
        ]


@dataclass(frozen=True)
class Words:
    """Attention maps of objects' words.

    Attributes:
        image_i: Image of each pair, as a number.
        covered_i: Share of the patches that are the object.
        values: Scores of the maps, by position.
        even_i: Attention to visual tokens that is spread evenly over all tokens, by position.
    """

    image_i: NDArray[np.int64]
    covered_i: FloatArray
    values: Mapping[Position, MapValues]
    even_i: Mapping[Position, FloatArray]


# Scores of captions behind one image each, larger for the right one: [b, r], or [b, 1] for the
# cross-entropy.
CaptionScores = Mapping[Score, FloatArray]


@dataclass(frozen=True)
class Measured:
    """What was measured on the images of one split; `other` is None for a single image."""

    words: Words
    own: CaptionScores
    other: CaptionScores | None


def caption_scores(
    values: Mapping[Position, MapValues], image_i: NDArray[np.int64], nats_b: FloatArray
) -> CaptionScores:
    """Return the scores of captions: means over their words, and the cross-entropy.

    Args:
        values: Scores of the words' maps, by position.
        image_i: Caption of each word, as a number; each caption has a word.
        nats_b: Nats a token of each caption.
    """
    count_b1 = np.bincount(image_i, minlength=len(nats_b))[:, None]

    def mean(values_ir: FloatArray) -> FloatArray:
        sum_br = np.zeros((len(nats_b), values_ir.shape[1]))
        np.add.at(sum_br, image_i, values_ir)
        return np.asarray(sum_br / count_b1)

    word, before = values["word"], values["before"]
    return {
        "attention": mean(word.on_image),
        "focus": -mean(word.entropy),
        "attention_before": mean(before.on_image),
        "focus_before": -mean(before.entropy),
        "cross_entropy": -nats_b[:, None],
    }


def auroc_interval(
    own_b: FloatArray, other_b: FloatArray, draws: tuple[int, int, float]
) -> tuple[float, float, float]:
    """Return the area under the ROC curve of scores of captions behind their own and behind another
    image, with its bootstrap interval over captions: both scores of a caption are drawn together.

    Args:
        own_b: Score behind the own image.
        other_b: Score behind another one.
        draws: Seed, number of resamples and level.
    """
    seed, resamples, level = draws
    wins_bj = (own_b[:, None] > other_b) + 0.5 * (own_b[:, None] == other_b)
    n = len(own_b)
    # Resampled sums over pairs of captions: counts @ wins @ counts.
    means_rx = resample_means(np.concatenate([wins_bj, np.eye(n)], axis=1), seed, resamples)
    drawn_r = (means_rx[:, :n] * means_rx[:, n:]).sum(axis=1)
    return percentile_interval(float(wins_bj.mean()), drawn_r, n, level)


def grounding_attention(
    readings: Readings,
    test: Measured,
    fitted: Measured,
    *,
    region: Literal["mask", "box"],
    seed: int,
    resamples: int,
    level: float,
) -> GroundingAttentionResult:
    """Return the figures of `test`; the best heads are those of `fitted`.

    Raises ValueError where a split has no pair.
    """
    if not len(test.words.image_i) or not len(fitted.words.image_i):
        raise ValueError("attention is measured on one pair of image and object or more")
    draws = (seed, resamples, level)
    grounding = []
    for position in POSITIONS:
        best = readings.best_head(fitted.words.values[position].auroc.mean(axis=0))
        places: list[tuple[int, int | None, int | None]] = [
            *((reading, layer, None) for layer, reading in readings.means().items()),
            (best, *readings.head(best)),
        ]
        grounding += [_grounding(test.words, position, *place, draws) for place in places]
    right_image = []
    for score, other in (test.other or {}).items():
        own = test.own[score]
        if score == "cross_entropy":
            right_image.append(_right_image(own, other, score, 0, None, None, draws))
            continue
        for layer, reading in readings.means().items():
            right_image.append(_right_image(own, other, score, reading, layer, None, draws))
        if fitted.other is not None:
            best = readings.best_head(_aurocs(fitted.own[score], fitted.other[score]))
            right_image.append(_right_image(own, other, score, best, *readings.head(best), draws))
    nats_b = -test.own["cross_entropy"][:, 0]
    behind = None if test.other is None else float(-test.other["cross_entropy"].mean())
    return GroundingAttentionResult(
        region=region,
        cross_entropy=estimate(bootstrap_mean(nats_b, *draws), len(nats_b), behind),
        n_images=len(nats_b),
        n_pairs=len(test.words.image_i),
        n_fit_images=len(fitted.own["cross_entropy"]),
        n_layers=readings.layers,
        n_heads=readings.heads,
        grounding=grounding,
        right_image=right_image,
    )


def _aurocs(own_br: FloatArray, other_br: FloatArray) -> FloatArray:
    """Return the area under the ROC curve of each reading."""
    from scipy.stats import rankdata

    n, m = len(own_br), len(other_br)
    ranks_xr = rankdata(np.concatenate([own_br, other_br]), axis=0)
    return np.asarray((ranks_xr[:n].sum(axis=0) - n * (n + 1) / 2) / (n * m))


def _grounding(
    words: Words,
    position: Position,
    reading: int,
    layer: int | None,
    head: int | None,
    draws: tuple[int, int, float],
) -> Grounding:
    values, image_i = words.values[position], words.image_i
    count_b = np.bincount(image_i).astype(np.float64)
    n, has = len(image_i), count_b > 0

    def by_image(value_i: FloatArray) -> FloatArray:
        return np.asarray(np.bincount(image_i, weights=value_i)[has], dtype=np.float64)

    def mean(value_ir: FloatArray, chance: float) -> Estimate:
        value_i = value_ir[:, reading]
        if not np.isfinite(value_i).all():  # there is no other image
            return Estimate(value=None, n=0)
        interval = bootstrap_ratio(by_image(value_i), count_b[has], *draws)
        return estimate(interval, n, chance)

    covered = float(words.covered_i.mean())
    hits_b = by_image(values.pointing[:, reading])
    return Grounding(
        position=position,
        layer=layer,
        head=head,
        on_object=mean(values.on_object, covered),
        shuffled_on_object=mean(values.shuffled_on_object, covered),
        auroc=mean(values.auroc, 0.5),
        shuffled_auroc=mean(values.shuffled_auroc, 0.5),
        pointing=estimate(rate_interval(hits_b, count_b[has], draws[2]), n, covered),
        on_image=mean(values.on_image, float(words.even_i[position].mean())),
    )


def _right_image(
    own_br: FloatArray,
    other_br: FloatArray,
    score: Score,
    reading: int,
    layer: int | None,
    head: int | None,
    draws: tuple[int, int, float],
) -> RightImage:
    own_b, other_b = own_br[:, reading], other_br[:, reading]
    wins_b = (own_b > other_b) + 0.5 * (own_b == other_b)
    n = len(own_b)
    return RightImage(
        score=score,
        layer=layer,
        head=head,
        auroc=estimate(auroc_interval(own_b, other_b, draws), n, 0.5),
        choice=estimate(rate_interval(wins_b, np.ones(n), draws[2]), n, 0.5),
    )
