"""Attribute discovery in images: latents of a vision SAE are named, ranked and verified.

Latents are named on one set of images, ranked on a second and verified on a third. The words of an
image are those of its captions, function words included. Defined here: of arXiv 2508.11277 only the
abstract is public.

Legend: n image, s latent, c latent of a chunk, k top image, w word.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from vista.metrics.discovery import AttributesResult, Proposal
from vista.metrics.figure import Figure
from vista.metrics.result import MetricResult
from vista.metrics.selectivity import selectivity, varying

# Latents that are sorted at once.
_PART = 256
# A latent without a name has this for the number of its word.
NAMELESS = -1


class ImageAttributesResult(MetricResult):
    """Precision and recall of discovery in images, by dictionary; chance: the same with the words
    of all images permuted among them."""

    images: dict[str, int] = Field(description="Images to name, rank and verify latents on.")
    layer: int | None = Field(None, description="Block that the latents are of, from 0.")
    dictionaries: dict[str, AttributesResult] = Field(
        description="sae; random_latents: as many of the same SAE; neurons: the features' "
        "channels; random: a random dictionary of the SAE's size and sparsity."
    )

    def figures(self) -> list[Figure]:
        """Return the figures of discovery of each dictionary."""
        return [
            replace(figure, of=name, layer=self.layer)
            for name, result in self.dictionaries.items()
            for figure in result.figures()
        ]


@dataclass(frozen=True)
class Captioned:
    """Images with the activations of a dictionary and the words of their captions.

    Attributes:
        score_ns: Largest activation of each latent over an image's patches.
        word_nw: Whether an image has each word.
    """

    score_ns: NDArray[np.float32]
    word_nw: NDArray[np.bool_]

    def permuted(self, rng: np.random.Generator) -> Captioned:
        """Return the same images with the words of all images permuted among them."""
        return replace(self, word_nw=rng.permutation(self.word_nw))


def frequent_words(words_n: Sequence[Collection[str]], min_images: int) -> list[str]:
    """Return the words that enough images have, sorted."""
    counts = Counter(word for words in words_n for word in set(words))
    return sorted(word for word, count in counts.items() if count >= min_images)


def name_latents(images: Captioned, top_k: int, min_images: int) -> NDArray[np.int64]:
    """Return the word of each latent [s]; NAMELESS if it fires on fewer than `min_images` images.

    It is the word whose share among the `top_k` images that the latent fires on most exceeds its
    share among all images by most, of equal ones the first. So no list of stop words is needed: a
    word that all images have names a latent only if there is no other.
    """
    share_w = images.word_nw.mean(axis=0)
    name_s = np.full(images.score_ns.shape[1], NAMELESS, dtype=np.int64)
    for part, score_nc in _parts(images.score_ns):
        top_kc = np.argsort(-score_nc, axis=0, kind="stable")[:top_k]
        fires_kc = np.take_along_axis(score_nc, top_kc, axis=0) > 0
        fired_c = fires_kc.sum(axis=0)
        count_cw = (images.word_nw[top_kc] & fires_kc[..., None]).sum(axis=0)
        excess_cw = count_cw / np.maximum(fired_c, 1)[:, None] - share_w
        name_s[part] = np.where(fired_c >= min_images, excess_cw.argmax(axis=1), NAMELESS)
    return name_s


def name_aurocs(
    images: Captioned, name_s: NDArray[np.int64], min_images: int
) -> NDArray[np.float64]:
    """Return the AUROC of each latent for the images with its word [s]; NaN without a word, and
    where fewer than `min_images` images have it, or lack it."""
    auroc_s = np.full(len(name_s), np.nan)
    for part, score_nc in _parts(images.score_ns):
        word_nc = images.word_nw[:, name_s[part]]
        few_c = np.minimum(word_nc.sum(axis=0), (~word_nc).sum(axis=0)) < max(min_images, 1)
        auroc_c = selectivity(score_nc, word_nc).diagonal()
        auroc_s[part] = np.where(few_c | (name_s[part] == NAMELESS), np.nan, auroc_c)
    return auroc_s


def discover(
    fit: Captioned,
    rank: Captioned,
    held: Captioned,
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
        fit: Images to name latents on.
        rank: Images to rank them on.
        held: Images to verify them on.
        words: Words of the columns of `word_nw`.
        most: Most proposals.
        top_k: Top images that a latent is named by.
        min_images: Images that a latent must fire on to have a name, and that must have the name
            (and lack it) to rank and to verify.
        shares: Smallest and largest share of `fit` that a latent may fire on.
        name_s: Number of the word of each latent; None: that of `name_latents`.
        at_random: Takes latents with a name in random order; None: by AUROC on `rank`.
    """
    if not words:
        return []
    if name_s is None:
        name_s = name_latents(fit, top_k, min_images)
    if at_random is not None:
        order = at_random.permutation(np.flatnonzero(name_s != NAMELESS))
    else:
        auroc_s = name_aurocs(
            rank, np.where(varying(fit.score_ns, shares), name_s, NAMELESS), min_images
        )
        order = np.argsort(-auroc_s, kind="stable")
        order = order[~np.isnan(auroc_s[order])]
    # Of each name the first.
    _, first = np.unique(name_s[order], return_index=True)
    chosen = order[np.sort(first)[:most]]
    chosen_held = replace(held, score_ns=held.score_ns[:, chosen])
    auroc_c = name_aurocs(chosen_held, name_s[chosen], min_images)
    return [
        Proposal(int(latent), words[name_s[latent]], float(auroc))
        for latent, auroc in zip(chosen, auroc_c, strict=True)
    ]


def numbered(
    names: Sequence[str | None], latents: NDArray[np.int64], n_latents: int
) -> tuple[list[str], NDArray[np.int64]]:
    """Return the distinct names of some latents, sorted, and the number of each latent's name [s];
    NAMELESS where it has none."""
    words = sorted({name for name in names if name is not None})
    name_s = np.full(n_latents, NAMELESS, dtype=np.int64)
    name_s[latents] = [NAMELESS if name is None else words.index(name) for name in names]
    return words, name_s


def true_values(
    attributes: Mapping[str, Sequence[str]], words: Collection[str]
) -> dict[str, tuple[str, ...]]:
    """Return the values of each attribute that are among the words, without empty attributes."""
    present = {name: tuple(v for v in values if v in words) for name, values in attributes.items()}
    return {name: values for name, values in present.items() if values}


def _parts(score_ns: NDArray[np.float32]) -> Iterator[tuple[slice, NDArray[np.float32]]]:
    for start in range(0, score_ns.shape[1], _PART):
        part = slice(start, start + _PART)
        yield part, score_ns[:, part]
