"""The shuffled-image level: names of an image, judged against other images.

A random derangement gives each image the objects of another one. Its expected score is the mean
over all pairs of different images, which is computed here exactly, without a random draw. Where
every pair costs a question to a judge, one derangement is drawn instead.

Suffixes: b images, c object categories.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

BoolArray = NDArray[np.bool_]
FloatArray = NDArray[np.float64]

# any: 1 if one of the image's objects is named. share: share of its objects that are named.
# extra: number of named categories that are not among its objects. any_extra: 1 if there is one.
Score = Literal["any", "share", "extra", "any_extra"]

_BLOCK = 512


@dataclass(frozen=True)
class Level:
    """A score of every image, by its own objects and by those of other images.

    Attributes:
        own_b: Score against the image's own objects.
        shuffled_b: Values whose mean is the shuffled level: what the image's names score against
            other images, plus what other images' names score against its objects, less the mean.
            (First-order projection of a mean over pairs, after Hoeffding 1948: resampling these
            values gives the level an interval that accounts for both sides of a pair.) NaN for
            fewer than two images. Where one derangement was drawn: the scores under that.

    An unknown score (a judge left it open) is NaN.
    """

    own_b: FloatArray
    shuffled_b: FloatArray

    def of(self, rows: NDArray[np.int64]) -> Level:
        """Return the scores of some images, under the same other images."""
        return Level(self.own_b[rows], self.shuffled_b[rows])

    @property
    def shuffled(self) -> float:
        """The shuffled-image level."""
        return float(self.shuffled_b.mean()) if len(self.shuffled_b) else float("nan")


def other_images(n: int, seed: int) -> NDArray[np.int64]:
    """Return another image for each of n images, [b]: a random cycle through all of them.

    The inverse of `vista.interventions.selection.derangement`; existing results depend on the
    direction of both.

    Raises:
        ValueError: There are fewer than two images.
    """
    if n < 2:
        raise ValueError(f"{n} images: no other image to take")
    cycle = np.random.default_rng(seed).permutation(n)
    other_b = np.empty(n, dtype=np.int64)
    other_b[cycle] = np.roll(cycle, 1)
    return other_b


def shuffled_level(named_bc: BoolArray, present_bc: BoolArray, score: Score) -> Level:
    """Score the names of each image against its own and against all other images' objects.

    Args:
        named_bc: Categories named in each image.
        present_bc: Categories present in each image; at least one an image.
        score: How names are scored against objects, see `Score`.

    Raises:
        ValueError: Shapes differ, or an image has no object.
    """
    if named_bc.shape != present_bc.shape:
        raise ValueError(f"shapes differ: {named_bc.shape} and {present_bc.shape}")
    if not present_bc.any(axis=1).all():
        raise ValueError("an image without any object cannot be judged: leave it out")
    n = len(named_bc)
    named = named_bc.astype(np.float32)
    present = present_bc.astype(np.float32)
    score_b = _score(named, present, score, paired=True)
    if n < 2:
        return Level(score_b, np.full(n, np.nan))
    row_sum = np.zeros(n)
    column_sum = np.zeros(n)
    for start in range(0, n, _BLOCK):
        block = _score(named[start : start + _BLOCK], present, score, paired=False)
        row_sum[start : start + _BLOCK] = block.sum(axis=1)
        column_sum += block.sum(axis=0)
    rows, columns = (row_sum - score_b) / (n - 1), (column_sum - score_b) / (n - 1)
    return Level(score_b, rows + columns - rows.mean())


def _score(
    named: NDArray[np.float32], present: NDArray[np.float32], score: Score, paired: bool
) -> FloatArray:
    """Score each image's names against its own objects ([b], paired) or all images' ([b, b])."""
    shared = ((named * present).sum(axis=1) if paired else named @ present.T).astype(np.float64)
    if score == "any":
        return (shared > 0.5).astype(np.float64)
    if score == "share":
        return np.asarray(shared / present.sum(axis=1, dtype=np.float64))
    mentions = named.sum(axis=1, dtype=np.float64)
    extra = (mentions if paired else mentions[:, None]) - shared
    return np.asarray(extra if score == "extra" else (extra > 0.5).astype(np.float64))
