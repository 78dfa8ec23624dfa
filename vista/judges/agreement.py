"""How good a judge is: against ground truth, against chance, and against another judge.

Verdicts are 1, 0, or UNANSWERED (-1), in arrays of any shape, booleans included. What is not
answered counts in `unanswered` and in nothing else.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict, Field

from vista.judges import NO, UNANSWERED, YES


class Agreement(BaseModel):
    """A judge against ground truth. NaN where a share is of nothing."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    n: int = Field(description="Pairs that the judge answered.")
    unanswered: int = Field(description="Pairs that it did not.")
    n_true: int = Field(description="Answered pairs that are true.")
    accuracy: float = Field(description="Share of the answered pairs that the judge gets right.")
    balanced_accuracy: float = Field(
        description="Mean of the shares of true and of false pairs that it gets right; chance 0.5."
    )
    chance: float = Field(
        description="Accuracy of a judge that says yes as often, but at random: what `accuracy` "
        "must be compared with where most pairs are false."
    )
    precision: float = Field(description="Share of the pairs it accepts that are true.")
    recall: float = Field(description="Share of the true pairs that it accepts.")


class Kappa(BaseModel):
    """Two judges on the same pairs. NaN where it is not defined."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    n: int = Field(description="Pairs that both answered.")
    unanswered: int = Field(description="Pairs that one of them did not.")
    agreement: float = Field(description="Share of the pairs on which they agree.")
    chance: float = Field(description="The same for independent judges that say yes as often.")
    kappa: float = Field(
        description="(agreement - chance) / (1 - chance); Cohen 1960. 1: always, 0: as by chance."
    )


def agreement_with_truth(verdicts: ArrayLike, truth: ArrayLike) -> Agreement:
    """Compare verdicts with what is known to be so.

    Raises:
        ValueError: The shapes differ, or there are other values than YES, NO and UNANSWERED.
    """
    said, true = _checked(verdicts), _checked(truth)
    if (true == UNANSWERED).any():
        raise ValueError("ground truth has an answer to everything")
    _require_same_shape(said, true)
    answered = said != UNANSWERED
    yes, is_true = said[answered] == YES, true[answered] == YES
    recall = _share(int((yes & is_true).sum()), int(is_true.sum()))
    refusal = _share(int((~yes & ~is_true).sum()), int((~is_true).sum()))
    return Agreement(
        n=len(yes),
        unanswered=int((~answered).sum()),
        n_true=int(is_true.sum()),
        accuracy=_share(int((yes == is_true).sum()), len(yes)),
        balanced_accuracy=(recall + refusal) / 2,
        chance=_by_chance(yes, is_true),
        precision=_share(int((yes & is_true).sum()), int(yes.sum())),
        recall=recall,
    )


def cohens_kappa(one: ArrayLike, other: ArrayLike) -> Kappa:
    """Compare the verdicts of two judges.

    Raises:
        ValueError: The shapes differ, or there are other values than YES, NO and UNANSWERED.
    """
    a, b = _checked(one), _checked(other)
    _require_same_shape(a, b)
    answered = (a != UNANSWERED) & (b != UNANSWERED)
    yes_a, yes_b = a[answered] == YES, b[answered] == YES
    agreement = _share(int((yes_a == yes_b).sum()), len(yes_a))
    chance = _by_chance(yes_a, yes_b)
    return Kappa(
        n=len(yes_a),
        unanswered=int((~answered).sum()),
        agreement=agreement,
        chance=chance,
        # Judges that both always say the same word agree, and chance says nothing about them.
        kappa=(agreement - chance) / (1 - chance) if chance < 1 else math.nan,
    )


def _checked(verdicts: ArrayLike) -> NDArray[np.int8]:
    values = np.asarray(verdicts)
    if not np.isin(values, (NO, YES, UNANSWERED)).all():
        raise ValueError("verdicts are 1, 0 or -1")
    return values.astype(np.int8)


def _require_same_shape(a: NDArray[np.int8], b: NDArray[np.int8]) -> None:
    if a.shape != b.shape:
        raise ValueError(f"shapes differ: {a.shape} and {b.shape}")


def _by_chance(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    """Expected agreement of the two answers where they are drawn independently."""
    if not len(a):
        return math.nan
    p, q = float(a.mean()), float(b.mean())
    return p * q + (1 - p) * (1 - q)


def _share(part: int, whole: int) -> float:
    return part / whole if whole else math.nan
