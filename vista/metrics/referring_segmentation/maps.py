"""Maps of expressions: where the latents fire whose labels are terms of an expression.

A term is a word or a phrase of an expression. The map of an expression is, on each patch, the
largest activation of its latents, each divided by a high percentile of its own activations on
validation images. The words of the logit lens are read in the same way: a word is its own label,
its probability the activation.

Suffixes: b images, p patches, k words of a patch, x expressions, n entries, l labels, w terms.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vista.judges.words import words
from vista.metrics.matching_rate.measure import JudgeFunction
from vista.metrics.word_readout import LayerWords
from vista.store.by_latent import Entries

FloatArray = NDArray[np.float32]
# From the number of a latent to where it fires.
EntriesOf = Callable[[int], Entries]

# Words that name nothing.
_EMPTY = frozenset(
    {
        *("a", "an", "the", "of", "on", "in", "at", "to", "by", "for", "from", "with", "without"),
        *("and", "or", "as", "is", "are", "was", "be", "been", "has", "have", "it", "its", "he"),
        *("she", "his", "her", "him", "they", "their", "them", "you", "your", "i", "my", "that"),
        *("this", "these", "those", "there", "who", "which", "what", "one", "ones", "not", "no"),
    }
)

# Words of the longest phrase that is a term.
_LONGEST = 3
# Labels times terms that a judge is asked for at once: 100 MB of verdicts.
_VERDICTS = 100_000_000


def terms(text: str) -> tuple[str, ...]:
    """Return what an expression may name: its words, and its phrases of two and three words.

    Words that name nothing are no terms and part phrases: "the cup on the left" has no "cup left".
    """
    text_words = words(text)
    found = (term for start in range(len(text_words)) for term in _terms_at(text_words, start))
    return tuple(dict.fromkeys(found))


def named_terms(text: str, named: Container[str]) -> tuple[str, ...]:
    """Return the terms of an expression that are `named`, each once, from left to right.

    The longest one wins over its words: where "hot dog" is named, a hot dog is no dog.
    """
    text_words = words(text)
    found, start = [], 0
    while start < len(text_words):
        term = next((term for term in _terms_at(text_words, start) if term in named), None)
        if term is not None:
            found.append(term)
        start += 1 if term is None else len(term.split())
    return tuple(dict.fromkeys(found))


def _terms_at(text_words: Sequence[str], start: int) -> Iterator[str]:
    """Yield the terms that begin at a word, the longest first."""
    next_words = text_words[start : start + _LONGEST]
    run = list(takewhile(lambda word: word not in _EMPTY, next_words))
    for length in range(len(run), 0, -1):
        yield " ".join(run[:length])


def latents_of_terms(
    labels: Sequence[str | None], wanted: Iterable[str], judge: JudgeFunction
) -> dict[str, list[int]]:
    """Return the latents whose label is each of some terms; terms without a latent are left out.

    Args:
        labels: Label of each latent, None where it has none.
        wanted: The terms.
        judge: Says which labels hold which terms.
    """
    latents: dict[str, list[int]] = {}
    for s, label in enumerate(labels):
        if label and label.strip():
            latents.setdefault(label, []).append(s)
    by_length: dict[int, list[str]] = {}
    for term in sorted(set(wanted)):
        by_length.setdefault(len(term.split()), []).append(term)
    found: dict[str, list[int]] = {}
    # Of all names that it is asked for, a judge may let the longest in a label win. Terms of other
    # expressions must not decide what a label holds, so each length is asked for by itself.
    for names in by_length.values():
        step = max(1, _VERDICTS // len(names))
        for start in range(0, len(latents), step):
            texts = list(latents)[start : start + step]
            verdict_lw = judge(texts, names)
            for text, w in zip(*np.nonzero(verdict_lw), strict=True):
                found.setdefault(names[w], []).extend(latents[texts[text]])
    return {name: sorted(found[name]) for name in sorted(found)}


def activation_scales(
    entries: EntriesOf, latents: Iterable[int], percentile: float
) -> dict[int, float]:
    """Return a percentile of each latent's activations above 0; one that never fires has none."""
    scales = {}
    for latent in sorted(set(latents)):
        value_n = np.asarray(entries(latent).value, dtype=np.float64)
        value_n = value_n[value_n > 0]
        if len(value_n):
            scales[latent] = float(np.percentile(value_n, percentile))
    return scales


@dataclass(frozen=True)
class NamedLatents:
    """The latents of each term, with the scale of each latent's activations."""

    latents: Mapping[str, Sequence[int]]
    scales: Mapping[int, float]

    def maps(
        self,
        entries: EntriesOf,
        terms_x: Sequence[Sequence[str]],
        image_x: NDArray[np.int64],
        n_images: int,
        n_patches: int,
    ) -> FloatArray:
        """Return the map of each expression on its image [x, p]; 0 where no latent of it fires.

        Args:
            entries: Where each latent fires in these images.
            terms_x: Terms of each expression.
            image_x: Image of each expression.
            n_images: Number of images.
            n_patches: Patches of an image.
        """
        rows_of: dict[str, list[int]] = {}
        for x, names in enumerate(terms_x):
            for name in names:
                rows_of.setdefault(name, []).append(x)
        maps_xp = np.zeros((len(terms_x), n_patches), dtype=np.float32)
        for name, rows in rows_of.items():
            if name in self.latents:
                map_bp = self._term_map(name, entries, n_images, n_patches)
                maps_xp[rows] = np.maximum(maps_xp[rows], map_bp[image_x[rows]])
        return maps_xp

    def _term_map(self, name: str, entries: EntriesOf, n_images: int, n_patches: int) -> FloatArray:
        map_bp = np.zeros((n_images, n_patches), dtype=np.float32)
        for latent in self.latents[name]:
            if latent in self.scales:
                fires = entries(latent)
                value_n = np.asarray(fires.value, dtype=np.float32) / self.scales[latent]
                np.maximum.at(map_bp, (fires.image, fires.token), value_n.astype(np.float32))
        return map_bp


def word_entries(read: LayerWords) -> EntriesOf:
    """Return where each word is among the strongest of a patch, as if it were a latent."""
    word_n = read.word_bpk.reshape(-1)
    order_n = np.argsort(word_n, kind="stable")
    sorted_n = word_n[order_n]
    strength_n = read.strength_bpk.reshape(-1)
    per_image, per_patch = int(np.prod(read.word_bpk.shape[1:])), read.word_bpk.shape[2]

    def entries(word: int) -> Entries:
        low, high = np.searchsorted(sorted_n, [word, word + 1])
        at_n = np.sort(order_n[low:high])
        image_n: NDArray[Any] = at_n // per_image
        token_n = at_n % per_image // per_patch
        return Entries(image_n.astype(np.uint32), token_n, strength_n[at_n])

    return entries


def permuted(
    strata: Sequence[Hashable], image_x: NDArray[np.int64], seed: int
) -> NDArray[np.int64]:
    """Return for each expression another one of its stratum, of another image: a permutation [x].

    Where no other image has one of the stratum, an expression stays in its place.

    Args:
        strata: What an expression shares with the one in its place, such as its kind.
        image_x: Image of each expression.
        seed: Seed of the permutation.
    """
    other_x = np.arange(len(strata))
    order = np.random.default_rng(seed).permutation(int(image_x.max(initial=-1)) + 1)
    for stratum in dict.fromkeys(strata):
        rows = np.flatnonzero([other == stratum for other in strata])
        rows = rows[np.argsort(order[image_x[rows]], kind="stable")]
        # Images lie together: a step as long as the longest run always leaves the image.
        step = int(np.bincount(image_x[rows]).max())
        if 2 * step <= len(rows):
            other_x[rows] = np.roll(rows, step)
    return other_x
