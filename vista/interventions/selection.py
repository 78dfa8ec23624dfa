"""Which latents stand for which concept: by label, ranked by how well they mark its places.

A place is a patch (concepts with boxes) or an image (concepts that a caption names). A latent is
silent at most places, so its activations come as (place, value) pairs of those where it fires.

Shape legend: c concept, u place, n firing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vista.engine.artifacts import digest_text

BoolArray = NDArray[np.bool_]
# (layer, latent) -> places where it fires, each once, and its activation there
Firings = Callable[[int, int], tuple[NDArray[np.int64], NDArray[np.float64]]]


@dataclass(frozen=True)
class Candidate:
    """A labelled latent: `share` of its strong activations that the label rules, `density` of
    places at which it fires."""

    layer: int
    latent: int
    label: str | None
    share: float
    density: float

    @property
    def at(self) -> tuple[int, int]:
        """Its layer and its number there."""
        return self.layer, self.latent


@dataclass(frozen=True)
class Chosen:
    """A latent that stands for a concept, and its AUROC for it (None where it has no meaning)."""

    candidate: Candidate
    auroc: float | None


def sparse_auroc(
    place_n: NDArray[np.int64], value_n: NDArray[np.float64], positive_u: BoolArray
) -> float | None:
    """Area under the ROC curve of a latent's activations over all places, silent ones being 0.

    The Mann-Whitney form with ties counted half; equal to scikit-learn's, and needs to sort the
    firings only. None where all places are positive or none is.
    """
    from scipy.stats import rankdata

    n_positive = int(positive_u.sum())
    n_negative = len(positive_u) - n_positive
    if not n_positive or not n_negative:
        return None
    hit_n = positive_u[place_n]
    n_silent = len(positive_u) - len(place_n)
    # Ranks among all places: the silent ones share the lowest.
    ranks = float((rankdata(value_n)[hit_n] + n_silent).sum())
    ranks += (n_positive - int(hit_n.sum())) * (n_silent + 1) / 2
    return (ranks - n_positive * (n_positive + 1) / 2) / (n_positive * n_negative)


def best_latents(
    candidates: Sequence[Candidate],
    named: BoolArray,
    firings: Firings,
    positive_cu: BoolArray,
    n_latents: int,
) -> list[list[Chosen]]:
    """Choose for each concept the `n_latents` whose label names it that mark its places best.

    Args:
        candidates: Labelled latents of all layers.
        named: [candidate, concept]: the label names the concept.
        firings: Where each latent fires, and how strongly.
        positive_cu: At which places each concept is.
        n_latents: Most latents a concept.

    Returns:
        For each concept its latents, best first (ties: the larger share, the lower layer, the
        lower number); none where no label names it.
    """
    chosen: list[list[Chosen]] = []
    for c, positive_u in enumerate(positive_cu):
        ranked = [
            Chosen(candidates[i], sparse_auroc(*firings(*candidates[i].at), positive_u))
            for i in np.flatnonzero(named[:, c]).tolist()
        ]
        ranked.sort(
            key=lambda choice: (
                -(0.5 if choice.auroc is None else choice.auroc),
                -choice.candidate.share,
                *choice.candidate.at,
            )
        )
        chosen.append(ranked[:n_latents])
    return chosen


def derangement(n: int, seed: int) -> list[int]:
    """Return a partner for each of `n` things, each thing once and none its own; [0] for one."""
    order = np.random.default_rng(seed).permutation(n).tolist()
    partner = list(range(n))
    # One cycle through all things: with two or more none is its own partner.
    for here, after in zip(order, order[1:] + order[:1], strict=True):
        partner[here] = after
    return partner


def image_rng(seed: int, image_id: str, *purpose: str) -> np.random.Generator:
    """Return a generator of one image's own, so that its draws do not depend on other images.

    `purpose` tells apart several draws for one image.
    """
    text = " ".join([str(seed), image_id, *purpose])
    return np.random.default_rng(int(digest_text(text)[:16], 16))
