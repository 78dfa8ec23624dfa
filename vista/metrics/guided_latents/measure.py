"""Latents as classifiers of patches: AUROC and F1, concept by concept.

Codes are sparse: a latent is silent on most patches. Of a rival's score the threshold is chosen on
one split, and F1 is measured on another.

Legend of shape suffixes: n patch, s latent, m concept, b image, d channel.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from vista.metrics.bootstrap import DEFAULT_LEVEL, DEFAULT_RESAMPLES, bootstrap, bootstrap_mean
from vista.metrics.figure import Figure
from vista.metrics.result import Estimate, MetricResult, estimate

Floats = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

# Who classifies: defined latents of the guided SAE, the same before topk, the best latent of the
# SAE without a guide, a linear probe, defined latents of the SAE with shuffled annotation.
DEFINED, PRE, PLAIN, PROBE, SHUFFLED = "defined", "defined_pre", "plain", "probe", "shuffled"
SHUFFLED_PRE = "shuffled_pre"
GUIDED = "guided"


class GuidedLatentsResult(MetricResult):
    """Defined latents against their rivals on held-out patches."""

    concepts: int = Field(description="Concepts that enough patches of both later splits have.")
    left_out: int = Field(description="Left-out classes that enough patches have.")
    patches: int = Field(description="Held-out patches.")
    layer: int | None = Field(None, description="Block that the features are of, from 0.")
    explained_variance: dict[str, Estimate] = Field(
        description="guided, plain -> 1 - FVU on held-out patches; n images."
    )
    variance_difference: Estimate = Field(description="Guided less plain, over the same images.")
    auroc: dict[str, Estimate] = Field(description="Classifier -> mean AUROC over concepts.")
    f1: dict[str, Estimate] = Field(
        description="Classifier -> mean F1 over concepts; chance: all patches are said to have it."
    )
    auroc_difference: dict[str, Estimate] = Field(
        description="Rival -> AUROC of defined latents less its own, over concepts."
    )
    f1_difference: dict[str, Estimate] = Field(description="The same of F1.")
    left_out_auroc: dict[str, Estimate] = Field(
        description="guided, plain -> mean AUROC of the best latent of each left-out class; and "
        "their difference, as `difference`."
    )
    left_out_f1: dict[str, Estimate] = Field(description="The same of F1.")

    def figures(self) -> list[Figure]:
        """Return explained variance, then the classifiers, then the left-out classes."""
        families = {
            "guided_explained_variance": self.explained_variance,
            "guided_variance_difference": {PLAIN: self.variance_difference},
            "guided_auroc": self.auroc,
            "guided_f1": self.f1,
            "guided_auroc_difference": self.auroc_difference,
            "guided_f1_difference": self.f1_difference,
            "guided_left_out_auroc": self.left_out_auroc,
            "guided_left_out_f1": self.left_out_f1,
        }
        return [
            value.figure(metric, self.layer, of=of)
            for metric, family in families.items()
            for of, value in family.items()
        ]


@dataclass(frozen=True)
class Scored:
    """Two splits of one classifier's scores: a matrix [n, m], dense or in CSC form."""

    choice_nm: Any
    test_nm: Any


def auroc_of(score_ns: Any, positive_nm: BoolArray) -> Floats:
    """Return the AUROC of each latent for each concept [s, m]; ties count half, NaN where all
    patches have the concept or none has.

    Args:
        score_ns: Scores in CSC form, none below 0: what is not stored is 0.
        positive_nm: Which patch has which concept.
    """
    from scipy.sparse import csc_matrix
    from scipy.stats import rankdata

    n, s = score_ns.shape
    positive = positive_nm.astype(np.float64)
    count_m = positive.sum(axis=0)
    # Ranks less that of the silent patches, which all tie: only stored entries are left.
    data, tied_s = np.empty(score_ns.nnz), np.empty(s)
    for latent in range(s):
        part = slice(score_ns.indptr[latent], score_ns.indptr[latent + 1])
        silent = n - (part.stop - part.start)
        tied_s[latent] = (silent + 1) / 2
        data[part] = silent + rankdata(score_ns.data[part]) - tied_s[latent]
    lifted = csc_matrix((data, score_ns.indices, score_ns.indptr), shape=(n, s))
    with np.errstate(invalid="ignore", divide="ignore"):
        ranks_sm = lifted.T @ positive + tied_s[:, None] * count_m
        won_sm = ranks_sm - count_m * (count_m + 1) / 2
        return np.asarray(won_sm / (count_m * (n - count_m)))


def paired_auroc(score_nm: NDArray[Any], positive_nm: BoolArray) -> Floats:
    """Return the AUROC of each column for the concept of the same number [m]."""
    from scipy.stats import rankdata

    positive = positive_nm.astype(np.float64)
    count_m = positive.sum(axis=0)
    ranks_m = (rankdata(score_nm, axis=0) * positive).sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        won_m = ranks_m - count_m * (count_m + 1) / 2
        return np.asarray(won_m / (count_m * (len(positive) - count_m)))


def best_threshold(score_n: NDArray[Any], positive_n: BoolArray) -> float:
    """Return the score from which on (>=) saying yes has the largest F1; of equal ones the highest.

    Raises:
        ValueError: No patch has the concept.
    """
    if not positive_n.any():
        raise ValueError("a threshold needs a patch that has the concept")
    bound_k, f1_k1 = _f1_by_bound(score_n, positive_n[:, None], positive_n.sum(keepdims=True))
    return float(bound_k[int(f1_k1.argmax())])


def _f1_by_bound(
    score_n: NDArray[Any], positive_nm: BoolArray, count_m: NDArray[np.int64]
) -> tuple[NDArray[Any], Floats]:
    """Return the distinct scores, falling [k], and the F1 of saying yes from each on [k, m].

    Args:
        score_n: Scores of patches.
        positive_nm: Which of them has which concept.
        count_m: Patches that have each concept, those without a score here included.
    """
    order = np.argsort(-score_n, kind="stable")
    ordered = score_n[order]
    hit_nm = np.cumsum(positive_nm[order], axis=0)
    f1_nm = 2 * hit_nm / (np.arange(1, len(order) + 1)[:, None] + count_m)
    # Equal scores are said yes to together.
    last_n = np.append(ordered[1:] != ordered[:-1], True)[: len(order)]
    return ordered[last_n], f1_nm[last_n]


def f1_of(yes_n: BoolArray, positive_n: BoolArray) -> float:
    """Return 2 TP / (yes + positive); 0 where both are empty."""
    both = int(yes_n.sum()) + int(positive_n.sum())
    return 2 * int((yes_n & positive_n).sum()) / both if both else 0.0


def f1_at_best(scored: Scored, choice_nm: BoolArray, test_nm: BoolArray) -> Floats:
    """Return the F1 of each column for its concept on test patches [m], thresholds from choice."""
    values = np.empty(test_nm.shape[1])
    for c in range(test_nm.shape[1]):
        choice_n, test_n = (
            np.asarray(scores[:, [c]].toarray() if hasattr(scores, "toarray") else scores[:, [c]])
            for scores in (scored.choice_nm, scored.test_nm)
        )
        bound = best_threshold(choice_n[:, 0], choice_nm[:, c])
        values[c] = f1_of(test_n[:, 0] >= bound, test_nm[:, c])
    return values


def f1_of_latents(score_ns: Any, positive_nm: BoolArray) -> Floats:
    """Return the F1 of each latent for each concept [s, m] at its best threshold above 0.

    Args:
        score_ns: Scores in CSC form, none below 0: what is not stored is 0.
        positive_nm: Which patch has which concept.
    """
    count_m = positive_nm.sum(axis=0)
    best_sm = np.zeros((score_ns.shape[1], len(count_m)))
    for latent in range(len(best_sm)):
        part = slice(score_ns.indptr[latent], score_ns.indptr[latent + 1])
        here_nm = positive_nm[score_ns.indices[part]]
        _, f1_km = _f1_by_bound(score_ns.data[part], here_nm, count_m)
        best_sm[latent] = f1_km.max(axis=0, initial=0)
    return best_sm


def best_latents(
    codes: tuple[Any, Any], choice_nm: BoolArray, test_nm: BoolArray
) -> tuple[NDArray[np.int64], tuple[Floats, Floats]]:
    """Return each concept's best latent by AUROC on choice patches [m]; and test AUROC [m] of this
    one, test F1 [m] of the best one by F1 on choice patches, so that neither figure is that of a
    latent which was chosen for the other.

    Args:
        codes: Activations [n, s] of choice and of test patches in CSC form.
        choice_nm: Which choice patch has which concept.
        test_nm: Which test patch has which concept.
    """
    auroc_sm = np.nan_to_num(auroc_of(codes[0], choice_nm), nan=-1.0)
    by_auroc_m, by_f1_m = auroc_sm.argmax(axis=0), f1_of_latents(codes[0], choice_nm).argmax(axis=0)
    auroc_m = paired_auroc(codes[1][:, by_auroc_m].toarray(), test_nm)
    by_f1 = Scored(*(code_ns[:, by_f1_m] for code_ns in codes))
    return by_auroc_m, (auroc_m, f1_at_best(by_f1, choice_nm, test_nm))


def score(scored: Scored, choice_nm: BoolArray, test_nm: BoolArray) -> tuple[Floats, Floats]:
    """Return AUROC and F1 of each column for its concept on test patches, [m] each."""
    test = scored.test_nm
    dense_nm = test.toarray() if hasattr(test, "toarray") else test
    return paired_auroc(dense_nm, test_nm), f1_at_best(scored, choice_nm, test_nm)


def enough(choice_nm: BoolArray, test_nm: BoolArray, least: int) -> BoolArray:
    """Return which concepts enough patches of both splits have, and enough lack [m]."""
    return np.asarray(
        np.logical_and.reduce(
            [
                np.minimum(part.sum(axis=0), len(part) - part.sum(axis=0)) >= least
                for part in (choice_nm, test_nm)
            ]
        )
    )


def compare(
    scores: Mapping[str, tuple[Floats, Floats]],
    left_out: Mapping[str, tuple[Floats, Floats]],
    errors: tuple[Floats, Floats, Floats],
    test_nm: BoolArray,
    *,
    layer: int | None,
    seed: int = 0,
    resamples: int = DEFAULT_RESAMPLES,
    level: float = DEFAULT_LEVEL,
) -> GuidedLatentsResult:
    """Return the figures with intervals.

    Args:
        scores: Classifier -> AUROC and F1 of each concept [m].
        left_out: guided and plain -> AUROC and F1 of each left-out class.
        errors: Squared error of the guided SAE and of the plain one, and squared distance to the
            mean patch: sums over each image's patches [b].
        test_nm: Which test patch has which concept.
        layer: Block that the features are of, for the rows.
        seed: Seed of the resamples.
        resamples: Bootstrap samples.
        level: Coverage of the intervals.
    """

    def mean(value_m: Floats, chance: float | None) -> Estimate:
        return estimate(bootstrap_mean(value_m, seed, resamples, level), len(value_m), chance)

    def explained(weights: Sequence[float]) -> Estimate:
        """1 - FVU of one SAE, or the difference of two: weights of the two errors, then of 1."""
        first, second, one = weights
        interval = bootstrap(
            np.stack(errors, axis=1),
            lambda means: one + (first * means[:, 0] + second * means[:, 1]) / means[:, 2],
            seed,
            resamples,
            level,
        )
        return estimate(interval, len(errors[0]))

    share_m = test_nm.mean(axis=0)
    always = float(np.mean(2 * share_m / (1 + share_m))) if len(share_m) else None
    rivals = [name for name in scores if name != DEFINED]

    def left(part: int, chance: float | None) -> dict[str, Estimate]:
        if not left_out:
            return {}
        guided, plain = left_out[GUIDED][part], left_out[PLAIN][part]
        return {
            GUIDED: mean(guided, chance),
            PLAIN: mean(plain, chance),
            "difference": mean(guided - plain, 0.0),
        }

    return GuidedLatentsResult(
        concepts=test_nm.shape[1],
        left_out=len(left_out[PLAIN][0]) if left_out else 0,
        patches=len(test_nm),
        layer=layer,
        explained_variance={GUIDED: explained((-1, 0, 1)), PLAIN: explained((0, -1, 1))},
        variance_difference=explained((-1, 1, 0)),
        auroc={name: mean(auroc_m, 0.5) for name, (auroc_m, _) in scores.items()},
        f1={name: mean(f1_m, always) for name, (_, f1_m) in scores.items()},
        auroc_difference={name: mean(scores[DEFINED][0] - scores[name][0], 0.0) for name in rivals},
        f1_difference={name: mean(scores[DEFINED][1] - scores[name][1], 0.0) for name in rivals},
        left_out_auroc=left(0, 0.5),
        left_out_f1=left(1, None),
    )
