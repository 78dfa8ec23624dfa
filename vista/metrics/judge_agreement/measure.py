"""Agreement of judges with ground truth and with each other.

A judge decides for each item (a caption, a label of a latent, an image) which object categories it
names. Most pairs of an item and a category are false, so accuracy alone means little: it is
reported with the accuracy of a judge that guesses, with precision and recall, and with Cohen's
kappa between two judges (Cohen 1960).

Suffixes: i items, o object categories, u units that the bootstrap resamples (images or labels),
4 the cells of the table of two judges as in vista.judges.agreement.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from vista.judges import NO, UNANSWERED, YES
from vista.judges.agreement import (
    FloatArray,
    balanced_accuracy,
    chance_accuracy,
    cohens_kappa,
    pair_counts,
    share_accepted,
    share_true,
)
from vista.metrics.bootstrap import bootstrap
from vista.metrics.figure import Figure
from vista.metrics.rates import rate_interval
from vista.metrics.result import Estimate, MetricResult, ResultPart, estimate

Kind = Literal["captions", "labels", "images"]
Verdicts = NDArray[np.int8]
# Seed, resamples and level of the bootstrap.
Draws = tuple[int, int, float]
# Cells of the table of two judges, the truth being the second: what a share counts, and of what.
_BOTH, _AGREED, _ALL = (0,), (0, 3), (0, 1, 2, 3)
_ACCEPTED, _TRUE = (0, 1), (0, 2)


@dataclass(frozen=True)
class Judged:
    """Verdicts of judges on items of one kind.

    Attributes:
        kind: What the items are.
        unit_i: Number of the unit that an item belongs to: its image, or the label itself.
        truth_io: Ground truth, YES or NO; UNANSWERED where there is none.
        verdicts: Judge -> [i, o], YES, NO or UNANSWERED.
        compared_i: Whether judges are compared with each other on the item.
    """

    kind: Kind
    unit_i: NDArray[np.int64]
    truth_io: Verdicts
    verdicts: Mapping[str, Verdicts]
    compared_i: NDArray[np.bool_]

    @property
    def known_i(self) -> NDArray[np.bool_]:
        """Whether there is ground truth about the item, [i]."""
        known: NDArray[np.bool_] = (self.truth_io != UNANSWERED).any(axis=1)
        return known


class Agreement(ResultPart):
    """One judge against ground truth on items of one kind."""

    items: Kind = Field(description="What was judged.")
    judge: str = Field(description="Name of the judge in the settings.")
    n: int = Field(description="Pairs of an item and a category that the judge answered.")
    unanswered: int = Field(description="Pairs that it did not; they are in no other figure.")
    n_true: int = Field(description="Answered pairs that are true.")
    accuracy: Estimate = Field(
        description="Share of the answered pairs on which the judge is right; chance is that of a "
        "judge that says yes as often, but at random. n: answered pairs."
    )
    balanced_accuracy: Estimate = Field(
        description="Mean of the shares of true and of false pairs on which it is right; chance "
        ".5. n: answered pairs."
    )
    precision: Estimate = Field(
        description="Share of the pairs it accepts that are true; chance is the share of all "
        "pairs that are. n: accepted pairs."
    )
    recall: Estimate = Field(
        description="Share of the true pairs that it accepts; chance is the share of all pairs "
        "that it accepts. n: true pairs."
    )

    def figures(self) -> list[Figure]:
        """Return the figures of this judge (`of`) on these items (`set`)."""
        pairs = self.n + self.unanswered
        share = self.unanswered / pairs if pairs else None
        unanswered = Estimate(value=share, ci_low=None, ci_high=None, n=pairs)
        return [
            figure.figure(metric, of=self.judge, set=self.items)
            for metric, figure in (
                ("judge_accuracy", self.accuracy),
                ("judge_balanced_accuracy", self.balanced_accuracy),
                ("judge_precision", self.precision),
                ("judge_recall", self.recall),
                ("judge_unanswered", unanswered),
            )
        ]


class Kappa(ResultPart):
    """Agreement of two judges on the same items of one kind."""

    items: Kind = Field(description="What was judged.")
    judges: tuple[str, str] = Field(description="Their names in the settings, sorted.")
    n: int = Field(description="Pairs of an item and a category that both answered.")
    unanswered: int = Field(description="Pairs that one of them did not.")
    agreement: Estimate = Field(
        description="Share of the pairs on which they agree; chance is that of independent "
        "judges that say yes as often."
    )
    kappa: Estimate = Field(
        description="Cohen's kappa, (agreement - chance) / (1 - chance): 1 if they always agree, 0 "
        "as by chance; null where both always give the same verdict."
    )

    def figures(self) -> list[Figure]:
        """Return the figures of this pair (`of` and `method`) on these items (`set`)."""
        first, second = self.judges
        return [
            figure.figure(metric, of=first, set=self.items, method=second)
            for metric, figure in (("judge_kappa", self.kappa), ("judge_agreement", self.agreement))
        ]


class JudgeAgreementResult(MetricResult):
    """All judges on items of all kinds."""

    judges: dict[str, str] = Field(description="Name in the settings -> the judge's own name.")
    n_captions: int = Field(description="Captions that were judged.")
    n_labels: int = Field(description="Distinct labels that judges were compared on.")
    n_named_labels: int = Field(description="Labels with a truth: they are a category's name.")
    n_images: int = Field(description="Images that were shown to judges.")
    n_categories: int = Field(description="Object categories that every item was judged for.")
    against_truth: list[Agreement] = Field(description="One entry a kind of items and judge.")
    between_judges: list[Kappa] = Field(description="One entry a kind of items and two judges.")

    def figures(self) -> list[Figure]:
        """Return the figures against ground truth, then those of each pair of judges."""
        entries: list[Agreement | Kappa] = [*self.against_truth, *self.between_judges]
        return [figure for entry in entries for figure in entry.figures()]


def label_truth(labels: Sequence[str], categories: Sequence[str]) -> Verdicts:
    """Return which categories labels name according to ground truth, [i, o].

    A label that equals a category's name, but for case and surrounding blanks, names that category
    and no other. There is no ground truth about other labels.
    """
    names = [_plain(name) for name in categories]
    # Two categories that differ in case alone cannot be told apart by a label.
    column = {name: o for o, name in enumerate(names) if names.count(name) == 1}
    truth_io = np.full((len(labels), len(names)), UNANSWERED, dtype=np.int8)
    for i, label in enumerate(labels):
        if _plain(label) in column:
            truth_io[i] = NO
            truth_io[i, column[_plain(label)]] = YES
    return truth_io


def agreement_of(judged: Judged, draws: Draws) -> list[Agreement]:
    """Compare each judge with the truth where there is one.

    Args:
        judged: Items of one kind.
        draws: Seed, resamples and level of the bootstrap.
    """
    known_i = judged.known_i
    truth_io, unit_i = judged.truth_io[known_i], judged.unit_i[known_i]
    agreements = []
    for name, all_verdicts_io in sorted(judged.verdicts.items()):
        verdicts_io = all_verdicts_io[known_i]
        counts_u4 = _by_unit(pair_counts(verdicts_io, truth_io), unit_i)
        whole_4 = counts_u4.sum(axis=0)
        n, n_true = int(whole_4.sum()), int(whole_4[list(_TRUE)].sum())
        agreements.append(
            Agreement(
                items=judged.kind,
                judge=name,
                n=n,
                unanswered=int(((verdicts_io == UNANSWERED) & (truth_io != UNANSWERED)).sum()),
                n_true=n_true,
                accuracy=_share(counts_u4, _AGREED, _ALL, draws, chance_accuracy(whole_4)),
                balanced_accuracy=_estimate(counts_u4, balanced_accuracy, draws, n, 0.5),
                precision=_share(counts_u4, _BOTH, _ACCEPTED, draws, share_true(whole_4)),
                recall=_share(counts_u4, _BOTH, _TRUE, draws, share_accepted(whole_4)),
            )
        )
    return agreements


def kappas_of(judged: Judged, draws: Draws) -> list[Kappa]:
    """Compare each two judges with each other. Arguments as for `agreement_of`."""
    compared_i = judged.compared_i
    unit_i = judged.unit_i[compared_i]
    kappas = []
    for one, other in combinations(sorted(judged.verdicts), 2):
        first_io, second_io = (judged.verdicts[name][compared_i] for name in (one, other))
        counts_u4 = _by_unit(pair_counts(first_io, second_io), unit_i)
        whole_4 = counts_u4.sum(axis=0)
        n = int(whole_4.sum())
        kappas.append(
            Kappa(
                items=judged.kind,
                judges=(one, other),
                n=n,
                unanswered=first_io.size - n,
                agreement=_share(counts_u4, _AGREED, _ALL, draws, chance_accuracy(whole_4)),
                kappa=_estimate(counts_u4, cohens_kappa, draws, n, 0.0),
            )
        )
    return kappas


def judge_agreement(
    captions: Judged,
    labels: Judged,
    images: Judged,
    *,
    judges: Mapping[str, str],
    seed: int,
    resamples: int,
    level: float,
) -> JudgeAgreementResult:
    """Measure every judge on items of every kind; a kind without items has no entries.

    Args:
        captions: Verdicts of all judges on captions.
        labels: Their verdicts on labels.
        images: Verdicts on images, of the judges that can be shown them.
        judges: Name in the settings -> the judge's own name.
        seed: Seed of the bootstrap.
        resamples: Number of resamples.
        level: Coverage of the intervals.
    """
    draws = (seed, resamples, level)
    parts = [part for part in (captions, labels, images) if len(part.unit_i)]
    return JudgeAgreementResult(
        judges=dict(judges),
        n_captions=len(captions.unit_i),
        n_labels=int(labels.compared_i.sum()),
        n_named_labels=int(labels.known_i.sum()),
        n_images=len(images.unit_i),
        n_categories=captions.truth_io.shape[1],
        against_truth=[entry for part in parts for entry in agreement_of(part, draws)],
        between_judges=[entry for part in parts for entry in kappas_of(part, draws)],
    )


def _share(
    counts_u4: NDArray[np.int64],
    part: tuple[int, ...],
    whole: tuple[int, ...],
    draws: Draws,
    chance: float | FloatArray,
) -> Estimate:
    """Return the share of the pairs in cells `whole` that are in `part`; n counts the former."""
    hits_u, tries_u = (counts_u4[:, list(cells)].sum(axis=1) for cells in (part, whole))
    return estimate(rate_interval(hits_u, tries_u, draws[2]), int(tries_u.sum()), float(chance))


def _estimate(
    counts_u4: NDArray[np.int64],
    statistic: Callable[[FloatArray], FloatArray],
    draws: Draws,
    n: int,
    chance: float | FloatArray,
) -> Estimate:
    return estimate(bootstrap(counts_u4, statistic, *draws), n, float(chance))


def _by_unit(counts_i4: NDArray[np.int64], unit_i: NDArray[np.int64]) -> NDArray[np.int64]:
    """Sum the counts of each unit's items, [u, 4]; units without any count are left out."""
    units, number_i = np.unique(unit_i, return_inverse=True)
    counts_u4 = np.zeros((len(units), 4), dtype=np.int64)
    np.add.at(counts_u4, number_i, counts_i4)
    counted_u4: NDArray[np.int64] = counts_u4[counts_u4.sum(axis=1) > 0]
    return counted_u4


def _plain(name: str) -> str:
    return name.strip().lower()
