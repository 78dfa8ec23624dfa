"""How well labels of latents hold: the AUROC of a latent's activation for the images of its label.

Legend of shape suffixes: n image, l latent, c class.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from vista.metrics.bootstrap import DEFAULT_LEVEL, DEFAULT_RESAMPLES, bootstrap_mean
from vista.metrics.figure import Figure
from vista.metrics.rates import rate_interval
from vista.metrics.result import Estimate, MetricResult, estimate
from vista.metrics.selectivity import selectivity

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

TOP_IMAGES, STEERING, EMBEDDING, SHUFFLED = "top_images", "steering", "embedding", "shuffled"
_NAMELESS = -1


class VisionLabelsResult(MetricResult):
    """Labellers of one vision SAE's latents."""

    latents: int = Field(description="Latents that labellers were asked for; all fire in training.")
    images: int = Field(description="Held-out images.")
    fit_latents: int = Field(description="Latents that fire in enough held-out images.")
    fit_classes: int = Field(description="Classes that enough held-out images show, and lack.")
    layer: int | None = Field(None, description="Block that the activations are of, from 0.")
    auroc: dict[str, Estimate] = Field(
        description="Labeller -> mean AUROC over latents with enough images of a label with enough."
    )
    coverage: dict[str, Estimate] = Field(description="Labeller -> share of latents with a label.")
    differences: dict[str, Estimate] = Field(
        description="Other labeller -> AUROC of steering less its own, over latents with both."
    )
    agreement: Estimate = Field(
        description="Share of equal labels of steering and top images, over latents with both. "
        "Chance: labels of one permuted among these latents, in expectation."
    )

    def figures(self) -> list[Figure]:
        """Return the rows of each labeller, then those of steering against top images."""
        scores = [
            score.figure("vision_label_auroc", self.layer, of=labeller)
            for labeller, score in self.auroc.items()
        ]
        shares = [
            share.figure("vision_label_coverage", self.layer, of=labeller)
            for labeller, share in self.coverage.items()
        ]
        return [
            *scores,
            *shares,
            *(
                difference.figure("vision_label_difference", self.layer, of=labeller)
                for labeller, difference in self.differences.items()
            ),
            self.agreement.figure("vision_label_agreement", self.layer, of=TOP_IMAGES),
        ]


def compare_labellers(
    score_nl: NDArray[np.float32],
    present_nc: NDArray[np.bool_],
    classes: Sequence[str],
    labels: Mapping[str, Sequence[str | None]],
    min_images: int,
    seed: int,
    resamples: int = DEFAULT_RESAMPLES,
    level: float = DEFAULT_LEVEL,
    layer: int | None = None,
) -> tuple[VisionLabelsResult, dict[str, Floats]]:
    """Score the labels of some latents on held-out images.

    Labels of `steering` are also scored as if each latent had the label of every other latent with
    one: `shuffled`, the expectation over permutations, without a random draw. It stays above .5 as
    far as latents share labels.

    Args:
        score_nl: Largest activation of each latent in each image.
        present_nc: Which classes each image shows.
        classes: Names of the classes.
        labels: Labeller -> label of each latent, None where it has none; `top_images` and
            `steering` among them.
        min_images: Images that a latent fires in, and that show a class and lack it, at least.
        seed: Seed of the bootstrap over latents.
        resamples: Bootstrap samples.
        level: Coverage of the intervals.
        layer: Block that the activations are of, for the rows.

    Returns:
        The result; by labeller the AUROC of each latent [l], NaN without a label, and where latent
        or class have too few images.
    """
    place = {name: c for c, name in enumerate(classes)}
    class_of = {
        labeller: np.array([place.get(label or "", _NAMELESS) for label in labels_l], np.int64)
        for labeller, labels_l in labels.items()
    }
    shown_c = present_nc.sum(axis=0)
    fit_c = np.minimum(shown_c, len(present_nc) - shown_c) >= min_images
    fit_l = (score_nl > 0).sum(axis=0) >= min_images
    auroc_lc = selectivity(score_nl, present_nc)
    auroc_lc[~fit_l[:, None] | ~fit_c[None]] = np.nan
    auroc = {labeller: _chosen(auroc_lc, class_l) for labeller, class_l in class_of.items()}
    auroc[SHUFFLED] = _shuffled(auroc_lc, class_of[STEERING], auroc[STEERING])

    def mean(value_l: Floats, chance: float) -> Estimate:
        known = value_l[np.isfinite(value_l)]
        return estimate(bootstrap_mean(known, seed, resamples, level), len(known), chance)

    def share(hit_l: NDArray[np.bool_], chance: float | None = None) -> Estimate:
        return estimate(rate_interval(hit_l, np.ones(len(hit_l)), level), len(hit_l), chance)

    named = {
        labeller: np.array([label is not None for label in labels_l], dtype=bool)
        for labeller, labels_l in labels.items()
    }
    both_l = named[STEERING] & named[TOP_IMAGES]
    pairs = [
        (labels[STEERING][at], labels[TOP_IMAGES][at]) for at in np.flatnonzero(both_l).tolist()
    ]
    result = VisionLabelsResult(
        latents=score_nl.shape[1],
        images=len(score_nl),
        fit_latents=int(fit_l.sum()),
        fit_classes=int(fit_c.sum()),
        layer=layer,
        auroc={labeller: mean(auroc_l, 0.5) for labeller, auroc_l in auroc.items()},
        coverage={labeller: share(named_l) for labeller, named_l in named.items()},
        differences={
            labeller: mean(auroc[STEERING] - auroc[labeller], 0.0)
            for labeller in labels
            if labeller != STEERING
        },
        agreement=share(np.array([a == b for a, b in pairs], dtype=bool), _permuted(pairs)),
    )
    return result, auroc


def _chosen(auroc_lc: Floats, class_l: Integers) -> Floats:
    """Return each latent's AUROC for its own class [l]; NaN without one."""
    value_l = auroc_lc[np.arange(len(class_l)), class_l]
    return np.where(class_l == _NAMELESS, np.nan, value_l)


def _shuffled(auroc_lc: Floats, class_l: Integers, auroc_l: Floats) -> Floats:
    """Return each latent's mean AUROC for the classes of all other latents that are scored [l]."""
    scored = np.flatnonzero(np.isfinite(auroc_l))
    shuffled_l = np.full(len(class_l), np.nan)
    if len(scored) > 1:
        sums = auroc_lc[np.ix_(scored, class_l[scored])].sum(axis=1)
        shuffled_l[scored] = (sums - auroc_l[scored]) / (len(scored) - 1)
    return shuffled_l


def _permuted(pairs: Sequence[tuple[str | None, str | None]]) -> float | None:
    """Return the expected share of equal labels where one side is permuted; None without a pair."""
    if not pairs:
        return None
    sides = [[pair[side] for pair in pairs] for side in (0, 1)]
    equal = sum(sides[0].count(label) * sides[1].count(label) for label in set(sides[0]))
    return equal / len(pairs) ** 2
