"""AUROC and FPR95 of scores that separate images of another distribution from held-out ones.

In-distribution images are the positive class: FPR95 is the share of the other images that are
accepted at the threshold that accepts 95 % of the in-distribution ones (Hendrycks and Gimpel, arXiv
1610.02136; OpenOOD, arXiv 2210.07242; OpenOOD's later edition swaps the classes). Legend:
i in-distribution image, o other image, r resample, u distinct value.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Field

from vista.metrics.bootstrap import percentile_interval
from vista.metrics.figure import Figure
from vista.metrics.ood_detection.scores import SCORES
from vista.metrics.result import Estimate, MetricResult, ResultPart, estimate

Floats = NDArray[np.float64]
TRUE_POSITIVE_RATE = 0.95
# The SAE's score and its rivals in paired differences: the same rule on other vectors.
OURS, RIVALS = "knn_latents", ("knn_raw", "knn_random")
# Images times resamples whose counts are held at once (32 MB).
_CELLS = 4_000_000


class FigureNames(NamedTuple):
    """Names of the figures on sets of one kind."""

    auroc: str
    fpr95: str
    knn_gain: str
    images: str


# By kind of the sets. Near: images of the same kind; far: of another (OpenOOD).
FIGURES = {
    "near": FigureNames("near_ood_auroc", "near_ood_fpr95", "near_ood_knn_gain", "near_ood_images"),
    "far": FigureNames("far_ood_auroc", "far_ood_fpr95", "far_ood_knn_gain", "far_ood_images"),
}


class OodScore(ResultPart):
    """How well one score separates one set from the in-distribution images."""

    auroc: Estimate = Field(
        description="Probability that an in-distribution image scores above one of the set, ties "
        "counted half; chance .5. n counts the images of both."
    )
    fpr95: Estimate = Field(
        description="Share of the set that scores at or above the value that 95 % of the "
        "in-distribution images reach; smaller is better, chance .95. n as above."
    )


class OodSet(ResultPart):
    """One set of images of another distribution."""

    kind: str = Field(description="near: of the same kind; far: of another.")
    n_in: int = Field(description="In-distribution images.")
    n_out: int = Field(description="Images of the set.")
    scores: dict[str, OodScore] = Field(description="By name of the score.")
    knn_gain: dict[str, Estimate] = Field(
        description="AUROC of the nearest-neighbour distance of latents less that of each rival, "
        "on the same resampled images; chance 0."
    )


class OodDetectionResult(MetricResult):
    """Every score on every set."""

    n_fitted: int = Field(description="Images that the scores were fitted on.")
    sets: dict[str, OodSet] = Field(description="By name of the set.")

    def figures(self) -> list[Figure]:
        """Return the figures of each set: AUROC and FPR95 of each score, the gain over each rival
        and, so that n of either side is known, the number of the set's images."""
        rows = []
        for name, result in self.sets.items():
            names = FIGURES[result.kind]
            for score, of_score in result.scores.items():
                rows.append(of_score.auroc.figure(names.auroc, of=score, set=name))
                rows.append(of_score.fpr95.figure(names.fpr95, of=score, set=name))
            rows += [
                gain.figure(names.knn_gain, of=rival, set=name)
                for rival, gain in result.knn_gain.items()
            ]
            rows.append(Figure(names.images, set=name, value=float(result.n_out), n=result.n_out))
        return rows


def ood_detection(
    inside: Mapping[str, ArrayLike],
    sets: Mapping[str, tuple[str, Mapping[str, ArrayLike]]],
    *,
    n_fitted: int,
    seed: int,
    resamples: int,
    level: float,
) -> OodDetectionResult:
    """Evaluate scores, which are larger where an image fits the distribution better.

    Args:
        inside: Scores [i] of the in-distribution images, by name.
        sets: "near" or "far", and the same scores [o] of its images, by name of the set.
        n_fitted: Images that the scores were fitted on.
        seed: Of the bootstrap, which draws the images of either side independently, and the same
            ones for every score.
        resamples: Of the bootstrap.
        level: Coverage of the intervals.

    Raises:
        ValueError: A side without images, or a score that is not finite.
    """
    results = {}
    for name, (kind, outside) in sets.items():
        scores, aurocs = {}, {}
        for score in SCORES:
            auroc_r, fpr_r = separation(inside[score], outside[score], seed, resamples)
            n = (np.size(inside[score]), np.size(outside[score]))
            scores[score] = OodScore(
                auroc=_estimate(auroc_r, level, n, 0.5),
                fpr95=_estimate(fpr_r, level, n, TRUE_POSITIVE_RATE),
            )
            aurocs[score] = auroc_r
        results[name] = OodSet(
            kind=kind,
            n_in=np.size(inside[OURS]),
            n_out=np.size(outside[OURS]),
            scores=scores,
            knn_gain={
                rival: _estimate(aurocs[OURS] - aurocs[rival], level, n, 0.0) for rival in RIVALS
            },
        )
    return OodDetectionResult(n_fitted=n_fitted, sets=results)


def separation(
    inside_i: ArrayLike, outside_o: ArrayLike, seed: int, resamples: int
) -> tuple[Floats, Floats]:
    """Return AUROC and FPR95 [1 + resamples]: of the images themselves, then of each resample.

    Raises:
        ValueError: A side without images, or a score that is not finite.
    """
    inside_i, outside_o = (np.asarray(x, dtype=np.float64) for x in (inside_i, outside_o))
    both = np.concatenate([inside_i, outside_o])
    if not len(inside_i) or not len(outside_o) or not np.isfinite(both).all():
        raise ValueError("scores must be finite, and of one image or more on either side")
    # The largest value first: a threshold moves down through them.
    _, place = np.unique(-both, return_inverse=True)
    size = int(place.max()) + 1
    needed = np.ceil(TRUE_POSITIVE_RATE * len(inside_i) - 1e-9)
    auroc, fpr = [], []
    for in_ri, out_ro in _drawn(len(inside_i), len(outside_o), seed, resamples):
        in_ru = _sums(in_ri, place[: len(inside_i)], size)
        out_ru = _sums(out_ro, place[len(inside_i) :], size)
        passed_ru = in_ru.cumsum(axis=1)
        wrong_ru = out_ru.cumsum(axis=1)
        above = (out_ru * (passed_ru - in_ru / 2)).sum(axis=1)
        auroc.append(above / (len(inside_i) * len(outside_o)))
        first_r1 = (passed_ru >= needed).argmax(axis=1)[:, None]
        fpr.append(np.take_along_axis(wrong_ru, first_r1, axis=1)[:, 0] / len(outside_o))
    return np.concatenate(auroc), np.concatenate(fpr)


def _drawn(n_in: int, n_out: int, seed: int, resamples: int) -> Iterator[tuple[Floats, Floats]]:
    """Yield how often each image is drawn, [r, i] and [r, o]; first the images themselves: 1."""
    yield np.ones((1, n_in)), np.ones((1, n_out))
    rng = np.random.default_rng(seed)
    block = max(1, _CELLS // (n_in + n_out))
    for start in range(0, resamples, block):
        size = min(block, resamples - start)
        inside, outside = (rng.multinomial(n, np.full(n, 1 / n), size) for n in (n_in, n_out))
        yield inside.astype(np.float64), outside.astype(np.float64)


def _sums(counts_rn: Floats, place_n: NDArray[np.int64], size: int) -> Floats:
    """Return the sums of the counts of the images at each of `size` values, [r, u]."""
    sums_ru = np.zeros((len(counts_rn), size))
    order = np.argsort(place_n, kind="stable")
    values, first = np.unique(place_n[order], return_index=True)
    sums_ru[:, values] = np.add.reduceat(counts_rn[:, order], first, axis=1)
    return sums_ru


def _estimate(values_r: Floats, level: float, n_images: tuple[int, int], chance: float) -> Estimate:
    """Return the first value with the percentile interval of the others, its resamples."""
    interval = percentile_interval(float(values_r[0]), values_r[1:], min(n_images), level)
    return estimate(interval, sum(n_images), chance)
