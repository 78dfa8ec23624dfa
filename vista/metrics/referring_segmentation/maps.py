"""Maps of expressions: where the latents fire whose labels are words of an expression.

The map of an expression is, on each patch, the largest activation of its latents, each divided by
a high percentile of its own activations on validation images. The words of the logit lens are read
in the same way: a word is its own label, its probability the activation.

Suffixes: b images, p patches, k words of a patch, x expressions, n entries.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
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


def terms(text: str) -> tuple[str, ...]:
    """Return the distinct words of an expression that may name something, in order."""
    return tuple(dict.fromkeys(word for word in words(text) if word not in _EMPTY))


def latents_of_terms(
    labels: Sequence[str | None], wanted: Iterable[str], judge: JudgeFunction
) -> dict[str, list[int]]:
    """Return the latents whose label is each of some words; words without a latent are left out.

    Args:
        labels: Label of each latent, None where it has none.
        wanted: The words.
        judge: Says which labels hold which words.
    """
    names = sorted(set(wanted))
    labelled = [s for s, label in enumerate(labels) if label and label.strip()]
    if not labelled or not names:
        return {}
    verdict_lw = judge([labels[s] for s in labelled], names)
    found = {
        name: [labelled[i] for i in np.flatnonzero(verdict_lw[:, w])]
        for w, name in enumerate(names)
    }
    return {name: latents for name, latents in found.items() if latents}


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
    """The latents of each word, with the scale of each latent's activations."""

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
            terms_x: Words of each expression.
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
                map_bp = self._word_map(name, entries, n_images, n_patches)
                maps_xp[rows] = np.maximum(maps_xp[rows], map_bp[image_x[rows]])
        return maps_xp

    def _word_map(self, name: str, entries: EntriesOf, n_images: int, n_patches: int) -> FloatArray:
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


def permuted(kinds: Sequence[str], image_x: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """Return for each expression another one of its kind, of another image: a permutation [x].

    Where no other image has one of the kind, an expression stays in its place.
    """
    other_x = np.arange(len(kinds))
    order = np.random.default_rng(seed).permutation(int(image_x.max(initial=-1)) + 1)
    for kind in sorted(set(kinds)):
        rows = np.flatnonzero([name == kind for name in kinds])
        rows = rows[np.argsort(order[image_x[rows]], kind="stable")]
        # Images lie together: a step as long as the longest run always leaves the image.
        step = int(np.bincount(image_x[rows]).max())
        if 2 * step <= len(rows):
            other_x[rows] = np.roll(rows, step)
    return other_x
