"""Monosemanticity score: how similar a latent's images are in another encoder's space.

The score of Pach et al. (arXiv 2504.02821): the mean pairwise cosine similarity of images in the
space of an encoder other than the one that the latents come from, each pair weighted by the
product of the latent's activations on both. Activations are scaled to 0..1 over the images, so that
latents and neurons, which have negative values, are measured alike. The score is 1 where that
encoder maps all images of the latent to one point, and the mean similarity of all pairs where the
latent has nothing to do with its space.

The fewer images a latent fires on, the higher its score, whatever it has learnt, so the mean over a
dictionary's latents also depends on how rare they are. Hence the control `random_matched`: the mean
over the random dictionary's latents, weighted so that they fire on as many images as the SAE's do
(direct standardisation, over numbers of images to a factor of two). The source has no such control.

Nothing of size images x images is made: with e of unit norm, the sum of a_i a_j <e_i, e_j> over
i != j is |sum a_i e_i|^2 - sum a_i^2, so one pass of running sums is enough.

Shape letters: n image, d channel of the other encoder, s latent (or neuron).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from vista.metrics.bootstrap import (
    DEFAULT_LEVEL,
    DEFAULT_RESAMPLES,
    bootstrap_mean,
    bootstrap_ratio,
)
from vista.metrics.figure import Figure
from vista.metrics.result import Estimate, MetricResult, estimate

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
# Below this share of one image's weight, a sum over pairs is the rounding error of a single image.
_ONE_IMAGE = 1e-9


class MonosemanticityResult(MetricResult):
    """Mean score of each dictionary's latents; the chance level is that of any two images."""

    images: int = Field(description="Images that the activations are of.")
    layer: int | None = Field(None, description="Block that the activations are of, from 0.")
    scores: dict[str, Estimate] = Field(
        description="Dictionary -> mean score over its latents that fire on two images or more."
    )
    silent: dict[str, int] = Field(description="Dictionary -> its latents without a score.")

    def figures(self) -> list[Figure]:
        """Return one row a dictionary; n is the number of latents with a score."""
        return [
            score.figure("monosemanticity", self.layer, of=dictionary)
            for dictionary, score in sorted(self.scores.items())
        ]


def monosemanticity(
    batches: Iterable[tuple[Mapping[str, NDArray[Any]], NDArray[Any]]],
    seed: int,
    resamples: int = DEFAULT_RESAMPLES,
    level: float = DEFAULT_LEVEL,
    layer: int | None = None,
) -> tuple[MonosemanticityResult, dict[str, Floats], dict[str, Integers]]:
    """Compare dictionaries by the mean score of their latents.

    Args:
        batches: For consecutive images the activations [n, s] of each dictionary (an SAE's latents,
            the raw neurons, a random dictionary: the same names every time), and the images'
            embeddings [n, d] by another encoder.
        seed: Seed of the bootstrap over latents.
        resamples: Bootstrap samples.
        level: Coverage of the intervals.
        layer: Block that the activations are of, for the rows.

    Returns:
        The result; by dictionary the score of each latent [s], and on how many images it is above
        zero [s].

    Raises:
        ValueError: There are fewer than two images, or an embedding is zero or not finite.
    """
    sums: dict[str, _Sums] = {}
    all_images = _Sums()
    images = 0
    for activations, embedding_nd in batches:
        unit_nd = _unit(embedding_nd)
        images += len(unit_nd)
        # A latent of 1 on every image: its score is the mean similarity of all pairs.
        all_images.add(np.ones((len(unit_nd), 1)), unit_nd)
        for name, activation_ns in activations.items():
            sums.setdefault(name, _Sums()).add(activation_ns, unit_nd)
    if images < 2:
        raise ValueError(f"{images} images have no pair to compare")
    chance = float(all_images.scores(scaled=False)[0])
    scores = {name: dictionary.scores() for name, dictionary in sums.items()}
    fired = {name: dictionary.fired() for name, dictionary in sums.items()}
    means, silent = {}, {}
    for name, score_s in scores.items():
        known = score_s[np.isfinite(score_s)]
        means[name] = estimate(bootstrap_mean(known, seed, resamples, level), len(known), chance)
        silent[name] = len(score_s) - len(known)
    scored = {name: np.isfinite(scores[name]) for name in ("sae", "random") if name in scores}
    if len(scored) == 2 and all(scored_s.any() for scored_s in scored.values()):
        target, available = (fired[name][scored_s] for name, scored_s in scored.items())
        weight = matching_weights(target, available)
        score = scores["random"][scored["random"]]
        value = bootstrap_ratio(weight * score, weight, seed, resamples, level)
        means["random_matched"] = estimate(value, int((weight > 0).sum()), chance)
    result = MonosemanticityResult(images=images, layer=layer, scores=means, silent=silent)
    return result, scores, fired


def monosemanticity_scores(activation_ns: NDArray[Any], embedding_nd: NDArray[Any]) -> Floats:
    """Return the score of each latent [s], NaN where it fires on fewer than two of the images."""
    sums = _Sums()
    sums.add(activation_ns, _unit(embedding_nd))
    return sums.scores()


def matching_weights(target: Integers, available: Integers) -> Floats:
    """Return weights of latents that give them the numbers of images of other latents.

    Weighted, the latents that fire on `available` images are distributed over numbers of images,
    to a factor of two, as those that fire on `target`. A number that no latent has is replaced by
    the nearest that one has.

    Args:
        target: Numbers of images, one or more, of the latents to match.
        available: Those of the latents that are weighted.
    """
    target_class, available_class = (
        np.log2(images).astype(np.int64) for images in (target, available)
    )
    present = np.unique(available_class)
    nearest = present[np.abs(present[:, None] - target_class).argmin(axis=0)]
    size = int(present[-1]) + 1
    share = np.bincount(nearest, minlength=size) / np.maximum(np.bincount(available_class), 1)
    return np.asarray(share[available_class])


class _Sums:
    """Running sums over images of activations a and unit embeddings e."""

    def __init__(self) -> None:
        self._n = 0
        self._e_d: Any = 0.0
        self._a_s: Any = 0.0
        self._aa_s: Any = 0.0
        self._ae_sd: Any = 0.0
        self._fired_s: Any = 0
        self._low_s: Any = np.inf
        self._high_s: Any = -np.inf

    def add(self, activation_ns: NDArray[Any], unit_nd: Floats) -> None:
        a_ns = np.asarray(activation_ns, dtype=np.float64)
        if len(a_ns) != len(unit_nd):
            raise ValueError(f"activations of {len(a_ns)} images, embeddings of {len(unit_nd)}")
        if not len(a_ns):
            return
        self._n += len(a_ns)
        self._e_d = self._e_d + unit_nd.sum(axis=0)
        self._a_s = self._a_s + a_ns.sum(axis=0)
        self._aa_s = self._aa_s + np.square(a_ns).sum(axis=0)
        self._ae_sd = self._ae_sd + a_ns.T @ unit_nd
        self._fired_s = self._fired_s + (a_ns > 0).sum(axis=0)
        self._low_s = np.minimum(self._low_s, a_ns.min(axis=0))
        self._high_s = np.maximum(self._high_s, a_ns.max(axis=0))

    def fired(self) -> Integers:
        """Return on how many images each latent is above zero [s]."""
        return np.asarray(self._fired_s, dtype=np.int64)

    def scores(self, scaled: bool = True) -> Floats:
        """Return the score [s] with activations scaled to 0..1, or as they are."""
        low_s = self._low_s if scaled else np.zeros_like(self._low_s)
        range_s = self._high_s - low_s
        with np.errstate(divide="ignore", invalid="ignore"):
            sum_s = (self._a_s - self._n * low_s) / range_s
            square_s = (self._aa_s - 2 * low_s * self._a_s + self._n * low_s**2) / range_s**2
            mean_sd = (self._ae_sd - np.outer(low_s, self._e_d)) / range_s[:, None]
            pairs_s = sum_s**2 - square_s
            score_s = (np.square(mean_sd).sum(axis=1) - square_s) / pairs_s
        return np.where((range_s > 0) & (pairs_s > _ONE_IMAGE), score_s, np.nan)


def _unit(embedding_nd: NDArray[Any]) -> Floats:
    e_nd = np.asarray(embedding_nd, dtype=np.float64)
    norm_n1 = np.linalg.norm(e_nd, axis=1, keepdims=True)
    if not (np.isfinite(norm_n1).all() and (norm_n1 > 0).all()):
        raise ValueError("an embedding is zero or not finite")
    return np.asarray(e_nd / norm_n1)
