"""How well a label holds on text that it was not written from: AUROC of the latent as classifier.

A word of held-out text is a positive where it is the latent's label, and scored by the latent's
largest activation over the word's tokens, so a "pizza" latent that also fires on "pizzicato" has
its false positives counted. 1: it fires on its word alone, or more than on any other; .5: chance.

Shape legend: n token, g word of the text, s dictionary latent, l distinct label.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from vista.config.sae import LabelSettings
from vista.judges.words import inflections
from vista.progress import progress
from vista.sae.activations import TextBatch, whole_documents
from vista.sae.label_table import LatentLabels
from vista.sae.labels import BIN_BITS, strength_bin, word_groups
from vista.sae.neutral import SparseAutoencoder

Floats = np.ndarray[Any, np.dtype[np.float64]]


def scored_labels(
    labels: LatentLabels,
    batches: Iterable[TextBatch],
    sae: SparseAutoencoder,
    texts: Sequence[str],
    settings: LabelSettings,
) -> LatentLabels:
    """Return labels with their AUROC on `batches`, the stream of documents of held-out `texts`.

    A label whose AUROC is below `settings.min_auroc` goes; one whose word the text does not hold
    has none, and stays.
    """
    scores = LabelScores(labels.label_s, settings.plurals)
    for batch in progress(batches, desc="label scores", unit="batch"):
        for part in whole_documents(batch, sae.dense_rows):
            with torch.no_grad():
                z_ns = sae.encode(part.stream_nd).cpu().float()
            group_n, words_g = word_groups(part, texts)
            scores.add(z_ns, group_n, words_g)
    auroc_s = scores.auroc()
    label_s = labels.label_s
    if settings.min_auroc is not None:
        label_s = tuple(
            None if auroc < settings.min_auroc else label
            for label, auroc in zip(label_s, auroc_s.tolist(), strict=True)
        )
    return replace(labels, label_s=label_s, auroc_s=auroc_s.astype(np.float32))


class LabelScores:
    """Counts of activations by latent, strength and whether the word is the label.

    Strengths are told apart in steps of 9 %; two of one step count as equal.
    """

    def __init__(self, label_s: Sequence[str | None], plurals: bool) -> None:
        distinct = sorted({label for label in label_s if label})
        number = {label: at for at, label in enumerate(distinct)}
        self._label_s = np.array([number.get(label or "", -1) for label in label_s], dtype=np.int64)
        self._of_word: dict[str, list[int]] = {}
        for label, at in number.items():
            forms = {label} | ({" ".join(p) for p in inflections(label)} if plurals else set())
            for form in sorted(forms):
                self._of_word.setdefault(form, []).append(at)
        self._positives_l = np.zeros(len(distinct), dtype=np.int64)
        self._words = 0
        self._key = np.zeros(0, dtype=np.int64)  # latent, strength, whether positive: ascending
        self._count = np.zeros(0, dtype=np.int64)

    def add(self, z_ns: torch.Tensor, group_n: np.ndarray[Any, Any], words_g: list[str]) -> None:
        """Count the words of some whole documents: `group_n` is the word [n] of each token."""
        if not words_g or not len(self._positives_l):
            return
        # The tokens of a word follow each other.
        z_gs = np.maximum.reduceat(z_ns.numpy(), np.unique(group_n, return_index=True)[1], axis=0)
        pairs = [(g, at) for g, word in enumerate(words_g) for at in self._of_word.get(word, ())]
        n_labels = len(self._positives_l)
        self._words += len(words_g)
        self._positives_l += np.bincount([at for _, at in pairs], minlength=n_labels)
        word, latent = z_gs.nonzero()
        value = z_gs[word, latent].astype(np.float64)
        labelled = self._label_s[latent] >= 0
        word, latent, value = word[labelled], latent[labelled], value[labelled]
        positive = np.isin(
            word * n_labels + self._label_s[latent],
            np.array([g * n_labels + at for g, at in pairs], dtype=np.int64),
        )
        cell = (latent << BIN_BITS | strength_bin(value)) << 1 | positive
        self._key, inverse = np.unique(np.concatenate([self._key, cell]), return_inverse=True)
        counts = np.concatenate([self._count, np.ones(len(cell), dtype=np.int64)])
        self._count = np.bincount(inverse, weights=counts, minlength=len(self._key)).astype(
            np.int64
        )

    def auroc(self) -> Floats:
        """Return the AUROC of each latent's label [s]; NaN without a label, or where the words of
        the text are all or none of them it."""
        auroc_s = np.full(len(self._label_s), np.nan)
        latent = self._key >> (BIN_BITS + 1)
        for s in np.flatnonzero(self._label_s >= 0).tolist():
            first, last = np.searchsorted(latent, [s, s + 1])
            strength, step = np.unique(self._key[first:last] >> 1, return_inverse=True)
            is_positive = (self._key[first:last] & 1).astype(bool)
            count = self._count[first:last]
            yes = np.bincount(step[is_positive], count[is_positive], minlength=len(strength))
            no = np.bincount(step[~is_positive], count[~is_positive], minlength=len(strength))
            positives = int(self._positives_l[self._label_s[s]])
            negatives = self._words - positives
            if not positives or not negatives:
                continue
            # Words on which the latent is silent stand below all others.
            yes = np.concatenate([[positives - yes.sum()], yes])
            no = np.concatenate([[negatives - no.sum()], no])
            below = np.cumsum(no) - no
            auroc_s[s] = (yes * (below + no / 2)).sum() / (positives * negatives)
        return auroc_s
