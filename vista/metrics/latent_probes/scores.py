"""Scores of one ranking of patches for one class, for all resamples of the images at once.

Average precision and AUROC equal scikit-learn's, ties included (a test compares them). Both depend
on the negative patches only through how many of each image lie between two scores of positive
patches, so a resample needs sums over images alone.

Shape legend: n patch, b image, v distinct score of the positive patches, highest first, r resample.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vista.metrics.bootstrap import resample_means

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


class ClassScores(NamedTuple):
    """Scores of a class, or their resamples [r], NaN where there is no positive (of purity: no
    chosen) patch: average precision, AUROC, purity (share of the patches at or above the threshold
    that show the class), coverage (share of the patches that show it that are)."""

    average_precision: Any
    auroc: Any
    purity: Any
    coverage: Any


class Counts(NamedTuple):
    """Patches of each image: positives at each score, negatives at it, negatives above it and below
    the score before; negatives below all; then positives and negatives at the threshold or above
    it."""

    positive_bv: Floats
    tied_bv: Floats
    between_bv: Floats
    below_b: Floats
    hit_b: Floats
    miss_b: Floats


def count_images(score_n: Floats, shown_n: Bools, image_n: NDArray[np.int64], at: float) -> Counts:
    """Count the patches of each image by where they lie in the ranking.

    Args:
        score_n: Score of each patch.
        shown_n: Whether it shows the class.
        image_n: Its image, numbered from 0 without gaps.
        at: Threshold.
    """
    images = int(image_n.max()) + 1
    value_v = np.unique(score_n[shown_n])[::-1]
    wide = len(value_v)
    # Of scores in falling order, the first that a score reaches: at or above it.
    place_n = np.searchsorted(-value_v, -score_n, side="left")
    tied_n = np.zeros(len(score_n), dtype=bool)
    inside = place_n < wide
    tied_n[inside] = value_v[place_n[inside]] == score_n[inside]

    def counted(chosen_n: Bools) -> Floats:
        cell = image_n[chosen_n] * (wide + 1) + place_n[chosen_n]
        counts = np.bincount(cell, minlength=images * (wide + 1))
        return counts.reshape(images, wide + 1).astype(np.float64)

    between_bv = counted(~shown_n & ~tied_n)
    chosen_n = score_n >= at
    return Counts(
        counted(shown_n)[:, :wide],
        counted(~shown_n & tied_n)[:, :wide],
        between_bv[:, :wide],
        between_bv[:, wide],
        np.bincount(image_n[chosen_n & shown_n], minlength=images).astype(np.float64),
        np.bincount(image_n[chosen_n & ~shown_n], minlength=images).astype(np.float64),
    )


def class_scores(counts: Counts) -> ClassScores:
    """Return the scores of a class on all images."""
    whole = [part.mean(axis=0, keepdims=True) for part in counts]
    return ClassScores(*(float(score[0]) for score in _scores(*whole)))


def resampled_scores(counts: Counts, seed: int, resamples: int) -> ClassScores:
    """Return the scores of a class on images drawn with replacement, [r] each; the same seed draws
    the same images for all classes and dictionaries."""
    wide = counts.positive_bv.shape[1]
    columns = np.concatenate([*counts[:3], *(part[:, None] for part in counts[3:])], axis=1)
    drawn = resample_means(columns, seed, resamples)
    parts = np.split(drawn[:, : 3 * wide], 3, axis=1)
    return ClassScores(*_scores(*parts, *drawn[:, 3 * wide :].T))


def _scores(
    positive_rv: Floats,
    tied_rv: Floats,
    between_rv: Floats,
    below_r: Floats,
    hit_r: Floats,
    miss_r: Floats,
) -> tuple[Floats, Floats, Floats, Floats]:
    found_rv = positive_rv.cumsum(axis=1)
    not_below_rv = (tied_rv + between_rv).cumsum(axis=1)
    positives_r = positive_rv.sum(axis=1)
    negatives_r = not_below_rv[:, -1] + below_r
    with np.errstate(divide="ignore", invalid="ignore"):
        precision_rv = np.where(positive_rv > 0, found_rv / (found_rv + not_below_rv), 0.0)
        precision_r = (positive_rv * precision_rv).sum(axis=1) / positives_r
        beaten_rv = negatives_r[:, None] - not_below_rv + tied_rv / 2
        auroc_r = (positive_rv * beaten_rv).sum(axis=1) / (positives_r * negatives_r)
        return precision_r, auroc_r, hit_r / (hit_r + miss_r), hit_r / positives_r


def best_threshold(score_n: Floats, shown_n: Bools) -> float:
    """Return the score from which on patches are taken for the class: that of the largest F1."""
    order = np.argsort(-score_n, kind="stable")
    score_n, hits_n = score_n[order], shown_n[order].cumsum()
    last_n = np.append(score_n[1:] != score_n[:-1], True)
    f1_n = 2 * hits_n / (np.arange(1, len(score_n) + 1) + shown_n.sum())
    return float(score_n[last_n][f1_n[last_n].argmax()])
