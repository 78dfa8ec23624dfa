"""Attributes that latents of a vision SAE find in images by themselves: names, order, verification.

Three sets of images, none in two of them: latents are named on the first, ranked on the second and
verified on the third. What captions say of an image is its words, function words among them. The
definitions are ours: of arXiv 2508.11277 the abstract alone is public.

Legend: n image, s latent, c latent of a part of them, k top image, w word.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from vista.metrics.attribute_discovery.measure import AttributesResult, Proposal
from vista.metrics.diffusion_steering.measure import selectivity
from vista.metrics.figure import Figure
from vista.metrics.result import MetricResult

# Latents that are sorted at once.
_PART = 256
# In the place of a word's number.
NAMELESS = -1


class ImageAttributesResult(MetricResult):
    """Precision and recall of discovery in images, by dictionary; chance: the same with the words
    of all images permuted among them."""

    images: dict[str, int] = Field(description="Images that served to name, rank and verify.")
    layer: int | None = Field(None, description="Block that the latents are of, from 0.")
    dictionaries: dict[str, AttributesResult] = Field(
        description="sae; random_latents: as many of the same SAE; neurons: the features' "
        "channels; random: a random dictionary of the SAE's size and sparsity."
    )

    def figures(self) -> list[Figure]:
        """The figures of discovery as image_*:DICTIONARY."""
        return [
            replace(row, metric=f"image_{row.metric}:{name}", layer=self.layer)
            for name, each in self.dictionaries.items()
            for row in each.figures()
        ]


@dataclass(frozen=True)
class Seen:
    """Images as a dictionary sees them and as they are told.

    score_ns: the largest activation of each latent over an image's patches; word_nw: whether each
    word is said of the image.
    """

    score_ns: NDArray[np.float32]
    word_nw: NDArray[np.bool_]

    def permuted(self, rng: np.random.Generator) -> Seen:
        """The same images, each with the words of another."""
        return replace(self, word_nw=rng.permutation(self.word_nw))


def frequent_words(said_n: Sequence[Collection[str]], min_images: int) -> list[str]:
    """The words that are said of enough images, sorted."""
    counts = Counter(word for said in said_n for word in set(said))
    return sorted(word for word, count in counts.items() if count >= min_images)


def word_matrix(said_n: Sequence[Collection[str]], words: Sequence[str]) -> NDArray[np.bool_]:
    """Whether each of `words` is said of each image [n, w]; a name of several words where all
    are."""
    place = {part: w for w, part in enumerate(sorted({p for word in words for p in word.split()}))}
    part_nw = np.zeros((len(said_n), len(place)), dtype=bool)
    for n, said in enumerate(said_n):
        part_nw[n, [place[part] for part in said if part in place]] = True
    word_nw = np.zeros((len(said_n), len(words)), dtype=bool)
    for w, word in enumerate(words):
        word_nw[:, w] = part_nw[:, [place[part] for part in word.split()]].all(axis=1)
    return word_nw


def name_latents(seen: Seen, top_k: int, min_images: int) -> NDArray[np.int64]:
    """The word of each latent [s]; NAMELESS where it fires on fewer than `min_images` images.

    The word whose share among the `top_k` images that the latent fires on most exceeds its share
    among all images by most, of equal ones the first: no list of words is left out, yet what is
    said of every image names nothing while any other word is left.
    """
    share_w = seen.word_nw.mean(axis=0)
    name_s = np.full(seen.score_ns.shape[1], NAMELESS, dtype=np.int64)
    for part, score_nc in _parts(seen.score_ns):
        top_kc = np.argsort(-score_nc, axis=0, kind="stable")[:top_k]
        fires_kc = np.take_along_axis(score_nc, top_kc, axis=0) > 0
        fired_c = fires_kc.sum(axis=0)
        said_cw = (seen.word_nw[top_kc] & fires_kc[..., None]).sum(axis=0)
        more_cw = said_cw / np.maximum(fired_c, 1)[:, None] - share_w
        name_s[part] = np.where(fired_c >= min_images, more_cw.argmax(axis=1), NAMELESS)
    return name_s


def own_aurocs(seen: Seen, name_s: NDArray[np.int64], min_images: int) -> NDArray[np.float64]:
    """AUROC of each latent for the images with its own word [s]; NaN without a word, and where
    fewer than `min_images` images have it, or lack it."""
    auroc_s = np.full(len(name_s), np.nan)
    for part, score_nc in _parts(seen.score_ns):
        word_nc = seen.word_nw[:, name_s[part]]
        few_c = np.minimum(word_nc.sum(axis=0), (~word_nc).sum(axis=0)) < max(min_images, 1)
        auroc_c = selectivity(score_nc, word_nc).diagonal()
        auroc_s[part] = np.where(few_c | (name_s[part] == NAMELESS), np.nan, auroc_c)
    return auroc_s


def discover(
    fit: Seen,
    rank: Seen,
    held: Seen,
    *,
    words: Sequence[str],
    most: int,
    top_k: int,
    min_images: int,
    shares: tuple[float, float] = (0.0, 1.0),
    name_s: NDArray[np.int64] | None = None,
    at_random: np.random.Generator | None = None,
) -> list[Proposal]:
    """Propose at most `most` latents as attributes, each of another name, best first.

    Args:
        fit: images to name on.
        rank: images to rank on.
        held: images to verify on.
        words: of the columns of `word_nw`.
        most: proposals.
        top_k: images that a latent is named by.
        min_images: images that a latent must fire on to have a name, and that must have the name
            (and lack it) to rank and to verify.
        shares: smallest and largest share of `fit` that a latent may fire on.
        name_s: names that others gave, as `name_latents`; None: those that it gives.
        at_random: take latents with a name in random order; None: by AUROC on `rank`.
    """
    if not words:
        return []
    if name_s is None:
        name_s = name_latents(fit, top_k, min_images)
    if at_random is not None:
        order = at_random.permutation(np.flatnonzero(name_s != NAMELESS))
    else:
        auroc_s = own_aurocs(
            rank, np.where(varying(fit.score_ns, shares), name_s, NAMELESS), min_images
        )
        order = np.argsort(-auroc_s, kind="stable")
        order = order[~np.isnan(auroc_s[order])]
    # Of each name the first.
    _, first = np.unique(name_s[order], return_index=True)
    chosen = order[np.sort(first)[:most]]
    chosen_held = replace(held, score_ns=held.score_ns[:, chosen])
    auroc_c = own_aurocs(chosen_held, name_s[chosen], min_images)
    return [
        Proposal(int(latent), words[name_s[latent]], float(auroc))
        for latent, auroc in zip(chosen, auroc_c, strict=True)
    ]


def varying(score_ns: NDArray[np.float32], shares: tuple[float, float]) -> NDArray[np.bool_]:
    """Which latents fire on a share of the images between the two, [s]."""
    share_s = (score_ns > 0).mean(axis=0)
    return np.asarray((share_s >= shares[0]) & (share_s <= shares[1]))


def most_varying(
    score_ns: NDArray[np.float32], shares: tuple[float, float], min_images: int, most: int
) -> NDArray[np.int64]:
    """The `most` latents of the largest variance over images, of those that fire on a share of
    them between the two and on `min_images` or more."""
    fit_s = varying(score_ns, shares) & ((score_ns > 0).sum(axis=0) >= min_images)
    order = np.argsort(-score_ns.var(axis=0), kind="stable")
    return np.asarray(order[fit_s[order]][:most])


def numbered(
    names: Sequence[str | None], latents: NDArray[np.int64], n_latents: int
) -> tuple[list[str], NDArray[np.int64]]:
    """The distinct names of some latents, sorted, and which of them each latent has [s]; NAMELESS
    where it has none."""
    words = sorted({name for name in names if name is not None})
    name_s = np.full(n_latents, NAMELESS, dtype=np.int64)
    name_s[latents] = [NAMELESS if name is None else words.index(name) for name in names]
    return words, name_s


def true_values(
    given: Mapping[str, Sequence[str]], words: Collection[str]
) -> dict[str, tuple[str, ...]]:
    """The values of each attribute that are among the words; attributes without one are left."""
    found = {name: tuple(v for v in values if v in words) for name, values in given.items()}
    return {name: values for name, values in found.items() if values}


def _parts(score_ns: NDArray[np.float32]) -> Iterator[tuple[slice, NDArray[np.float32]]]:
    for start in range(0, score_ns.shape[1], _PART):
        part = slice(start, start + _PART)
        yield part, score_ns[:, part]
