"""How good a judge is: against ground truth, against chance, and against another judge.

Verdicts are YES, NO, or UNANSWERED, in arrays of any shape, booleans included. Two arrays of them
become four counts, and every figure is a function of such counts; where it is a share of nothing
it is NaN.

Suffixes: i items (a text, an image), o objects; 4: both yes, only the first, only the second, none.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vista.judges import NO, UNANSWERED, YES

FloatArray = NDArray[np.float64]
_VERDICTS = (NO, YES, UNANSWERED)


def pair_counts(first_io: ArrayLike, second_io: ArrayLike) -> NDArray[np.int64]:
    """Count the pairs of each item by both verdicts, [i, 4]; truth is the second.

    A pair with an unanswered verdict is not counted.

    Raises:
        ValueError: The shapes differ, are not [items, objects], or there are other values than
            YES, NO and UNANSWERED.
    """
    first, second = np.asarray(first_io), np.asarray(second_io)
    if first.shape != second.shape or first.ndim != 2:
        raise ValueError(f"expected two arrays [items, objects]: {first.shape}, {second.shape}")
    if not (np.isin(first, _VERDICTS).all() and np.isin(second, _VERDICTS).all()):
        raise ValueError("verdicts are 1, 0 or -1")
    kinds = ((YES, YES), (YES, NO), (NO, YES), (NO, NO))
    return np.stack([((first == a) & (second == b)).sum(axis=1) for a, b in kinds], axis=1)


def accuracy(counts_4: ArrayLike) -> FloatArray:
    """Share of the pairs that the two agree on."""
    both, _, _, none, whole = _parts(counts_4)
    return _share(both + none, whole)


def chance_accuracy(counts_4: ArrayLike) -> FloatArray:
    """The same for answers that are drawn independently, yes as often as here."""
    both, first, second, none, whole = _parts(counts_4)
    yes, no = (both + first) * (both + second), (second + none) * (first + none)
    return _share(yes + no, whole * whole)


def precision(counts_4: ArrayLike) -> FloatArray:
    """Share of the pairs that the first accepts that are true; by chance, `share_true`."""
    both, first, _, _, _ = _parts(counts_4)
    return _share(both, both + first)


def recall(counts_4: ArrayLike) -> FloatArray:
    """Share of the true pairs that the first accepts; by chance, `share_accepted`."""
    both, _, second, _, _ = _parts(counts_4)
    return _share(both, both + second)


def balanced_accuracy(counts_4: ArrayLike) -> FloatArray:
    """Mean of the shares of true and of false pairs that the first gets right; by chance .5."""
    both, first, second, none, _ = _parts(counts_4)
    return (_share(both, both + second) + _share(none, first + none)) / 2


def share_true(counts_4: ArrayLike) -> FloatArray:
    """Share of the pairs that are true: the precision of a judge that guesses."""
    both, _, second, _, whole = _parts(counts_4)
    return _share(both + second, whole)


def share_accepted(counts_4: ArrayLike) -> FloatArray:
    """Share of the pairs that the first accepts: the recall of a judge that guesses."""
    both, first, _, _, whole = _parts(counts_4)
    return _share(both + first, whole)


def cohens_kappa(counts_4: ArrayLike) -> FloatArray:
    """(accuracy - chance) / (1 - chance) of two judges: 1 always, 0 as by chance (Cohen 1960).

    NaN where both always give the same verdict: agreement by chance is then 1, too.
    """
    chance = chance_accuracy(counts_4)
    return _share(accuracy(counts_4) - chance, 1 - chance)


def _parts(counts_4: ArrayLike) -> tuple[FloatArray, ...]:
    """The four counts and their sum, each without the last axis."""
    counts = np.asarray(counts_4, dtype=np.float64)
    return (*np.moveaxis(counts, -1, 0), counts.sum(axis=-1))


def _share(part: FloatArray, whole: FloatArray) -> FloatArray:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(part / whole)
