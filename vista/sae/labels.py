"""Name latents by the text that they fire on.

One streaming pass gathers, for each latent: on how many text tokens it fires (density), how its
activation spreads over words, and its strongest places, at most one a document. The label is the
word that holds most of the latent's *strong* activation, if its share is large enough. Weak firing
is left out, as it is where labels are written from top contexts (Bills et al. 2023, Language models
can explain neurons in language models): attention carries a word on to its neighbours, so a latent
for a word fires faintly on many others, and by number they outweigh the word itself.

Memory is bounded: the places are a fixed table, and of the (latent, word, strength) cells only the
heaviest are kept (the rest is missing from a word's share and from the total alike).

A word is a run of letters, digits and underscores, or one other sign, in lower case; a token that
is part of a word counts as that word, so that a subword tokenizer gives words all the same.

Shape legend: b document of the batch, n token, s dictionary latent, c top context.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch

from vista.config.sae import LabelSettings
from vista.judges.words import singulars
from vista.language.model import LanguageModel
from vista.progress import progress
from vista.sae.activations import TextBatch, text_activations, whole_documents
from vista.sae.label_table import CONTROL, LatentLabels
from vista.sae.neutral import SparseAutoencoder

MAX_CELLS = 4_000_000  # (latent, word, strength) cells kept in memory: 64 MB
# Strengths are told apart in steps of a factor 2 ** (1 / 8): what counts as strong, a share of the
# latent's maximum, is only known at the end of the pass.
_STEPS = 8
BIN_BITS, _WORD_BITS = 10, 30
_ZERO_BIN = 1 << (BIN_BITS - 1)
_WORD = re.compile(r"\w+|[^\w\s]")
_BOS_WORD, _EOS_WORD = "<bos>", "<eos>"

Floats = np.ndarray[Any, np.dtype[np.float64]]
Ints = np.ndarray[Any, np.dtype[np.int64]]


def label_latents(
    llm: LanguageModel, sae: SparseAutoencoder, texts: Sequence[str], settings: LabelSettings
) -> LatentLabels:
    """Read `texts` until `settings.tokens` tokens have passed, and name every latent of `sae`.

    Raises UserError where the texts hold no token or the SAE's layer is not one of the model's.
    """
    batches = text_activations(llm, texts, sae.config.layer, settings.text, settings.tokens)
    return label_on(batches, sae, texts, settings)


def label_on(
    batches: Iterable[TextBatch],
    sae: SparseAutoencoder,
    texts: Sequence[str],
    settings: LabelSettings,
) -> LatentLabels:
    """Name every latent of `sae` by the tokens of `batches`, documents of `texts`."""
    mass = WordMass(sae.config.d_sae)
    top = TopContexts(sae.config.d_sae, settings.contexts)
    fired_s = np.zeros(sae.config.d_sae, dtype=np.int64)
    tokens = 0
    for batch in progress(batches, desc="labels", unit="batch"):
        for part in whole_documents(batch, sae.dense_rows):
            with torch.no_grad():
                z_ns = sae.encode(part.stream_nd)
            fired_s += (z_ns > 0).sum(dim=0).cpu().numpy()
            mass.add(z_ns, batch_words(part, texts, settings.whole_words))
            top.add(z_ns, part)
        tokens += len(batch)
    label_s, share_s = mass.labels(settings.min_share, settings.strong, settings.plurals)
    return LatentLabels(
        layer=sae.config.layer,
        sae=sae.config.name,
        tokens=tokens,
        label_s=label_s,
        share_s=share_s.astype(np.float32),
        density_s=(fired_s / tokens).astype(np.float32),
        contexts_s=top.snippets(texts, settings.window),
    )


class WordMass:
    """Activation mass of each (latent, word, strength), in bounded memory."""

    def __init__(self, d_sae: int, max_cells: int = MAX_CELLS) -> None:
        self._max_cells = max_cells
        self._words: dict[str, int] = {}
        self._key: Ints = np.zeros(0, dtype=np.int64)  # latent, word, bin: ascending
        self._mass: Floats = np.zeros(0, dtype=np.float64)
        self._top_s: Floats = np.zeros(d_sae, dtype=np.float64)

    def add(self, z_ns: torch.Tensor, words_n: Sequence[str]) -> None:
        """Count the activations [n, s] of n tokens that belong to `words_n`."""
        word_n = np.array([self._words.setdefault(w, len(self._words)) for w in words_n])
        token, latent = (index.cpu().numpy() for index in z_ns.nonzero(as_tuple=True))
        value = z_ns.cpu().numpy()[token, latent].astype(np.float64)
        np.maximum.at(self._top_s, latent, value)
        cell = (latent.astype(np.int64) << _WORD_BITS | word_n[token]) << BIN_BITS | strength_bin(
            value
        )
        weight = np.concatenate([self._mass, value])
        self._key, inverse = np.unique(np.concatenate([self._key, cell]), return_inverse=True)
        summed = np.bincount(inverse, weights=weight, minlength=len(self._key))
        self._mass = summed.astype(np.float64)
        if len(self._key) > self._max_cells:
            kept = np.sort(np.argsort(-self._mass, kind="stable")[: self._max_cells // 2])
            self._key, self._mass = self._key[kept], self._mass[kept]

    def labels(
        self, min_share: float, strong: float, plurals: bool = False
    ) -> tuple[tuple[str | None, ...], Floats]:
        """For each latent its heaviest word (None below `min_share`), and that word's share.

        With `plurals` singular and plural are one word, and the form that holds more names it.
        Only activations of at least `strong` x the latent's maximum count (to within one step of
        strength, 9 %).
        """
        names = list(self._words)
        latent = self._key >> (_WORD_BITS + BIN_BITS)
        strong_enough = (self._key & ((1 << BIN_BITS) - 1)) >= strength_bin(
            strong * self._top_s[latent]
        )
        pair, inverse = np.unique(self._key[strong_enough] >> BIN_BITS, return_inverse=True)
        weight = self._mass[strong_enough]
        mass: Floats = np.bincount(inverse, weights=weight, minlength=len(pair)).astype(np.float64)
        latent, word = pair >> _WORD_BITS, pair & ((1 << _WORD_BITS) - 1)
        total_s = np.bincount(latent, weights=mass, minlength=len(self._top_s))
        if plurals:
            latent, word, mass = _merged(latent, word, mass, names)
        # Heaviest first within a latent; equal masses by spelling, not by order of appearance.
        rank = np.zeros(len(names), dtype=np.int64)
        rank[sorted(range(len(names)), key=names.__getitem__)] = np.arange(len(names))
        order = np.lexsort((rank[word], -mass, latent))
        first = order[np.unique(latent[order], return_index=True)[1]]
        share_s = np.zeros(len(self._top_s))
        share_s[latent[first]] = mass[first] / total_s[latent[first]]
        label_s: list[str | None] = [None] * len(share_s)
        for at in first:
            if share_s[latent[at]] >= min_share:
                label_s[latent[at]] = names[word[at]]
        return tuple(label_s), share_s


def _merged(latent: Ints, word: Ints, mass: Floats, names: list[str]) -> tuple[Ints, Ints, Floats]:
    """Join the masses of singular and plural within each latent, under the heavier form."""
    singular = singulars(names)
    number = {name: at for at, name in enumerate(names)}
    class_w = np.array([number[singular.get(name, name)] for name in names], dtype=np.int64)
    pair, inverse = np.unique(latent << _WORD_BITS | class_w[word], return_inverse=True)
    joined = np.bincount(inverse, weights=mass, minlength=len(pair))
    # The first of each class, heaviest first; equal masses by spelling.
    by_name = np.array(sorted(range(len(names)), key=names.__getitem__)).argsort()
    order = np.lexsort((by_name[word], -mass, inverse))
    first = order[np.unique(inverse[order], return_index=True)[1]]
    return pair >> _WORD_BITS, word[first], joined.astype(np.float64)


def strength_bin(value: Floats) -> Ints:
    """Number of the strength that an activation has."""
    with np.errstate(divide="ignore"):
        steps = np.floor(_STEPS * np.log2(value))
    bins: Ints = np.clip(steps + _ZERO_BIN, 0, 2 * _ZERO_BIN - 1).astype(np.int64)
    return bins


class TopContexts:
    """The strongest tokens of each latent, at most one a document."""

    def __init__(self, d_sae: int, contexts: int) -> None:
        self._value_cs = torch.zeros(contexts, d_sae)
        # document, first character, last character + 1
        self._place_cs3 = torch.zeros(contexts, d_sae, 3, dtype=torch.int64)

    def add(self, z_ns: torch.Tensor, batch: TextBatch) -> None:
        """Let the tokens of a batch of whole documents compete with those kept so far."""
        documents, starts = np.unique(batch.document_n, return_index=True)
        place_n3 = torch.from_numpy(
            np.concatenate([batch.document_n[:, None], batch.span_n2], axis=1)
        )
        values, places = [self._value_cs], [self._place_cs3]
        for start, end in zip(starts, [*starts[1:], len(batch)], strict=True):
            value_s, at_s = z_ns[start:end].cpu().float().max(dim=0)
            values.append(value_s[None])
            places.append(place_n3[start:end][at_s][None])
        assert len(values) == len(documents) + 1
        # Stable: of equal activations the earlier document stays, in every run.
        value, order = torch.cat(values).sort(dim=0, descending=True, stable=True)
        kept_cs = order[: len(self._value_cs)]
        self._value_cs = value[: len(self._value_cs)]
        self._place_cs3 = torch.cat(places).gather(0, kept_cs[..., None].expand(-1, -1, 3))

    def snippets(self, texts: Sequence[str], window: int) -> tuple[tuple[str, ...], ...]:
        """Each latent's contexts, strongest first; none for a latent that never fired."""
        contexts = []
        for latent in range(self._value_cs.shape[1]):
            value_c = self._value_cs[:, latent].tolist()
            place_c3 = self._place_cs3[:, latent].tolist()
            contexts.append(
                tuple(
                    f"{value:.3g}: {snippet(texts[document], start, end, window)}"
                    for value, (document, start, end) in zip(value_c, place_c3, strict=True)
                    if value > 0
                )
            )
        return tuple(contexts)


def batch_words(batch: TextBatch, texts: Sequence[str], whole_words: bool = False) -> list[str]:
    """The word that each token of `batch` belongs to, in lower case.

    With `whole_words`, a token before the end of its word stands for the piece read so far, such as
    `pizz-` of pizza.
    """
    return [
        f"{word[: end - start]}-" if whole_words and 0 < end - start < len(word) else word
        for word, start, end in _token_words(batch, texts)
    ]


def word_groups(batch: TextBatch, texts: Sequence[str]) -> tuple[Ints, list[str]]:
    """Return the word of the text that each token is part of [n], and these words, lower case."""
    group_n = np.zeros(len(batch), dtype=np.int64)
    words_g: list[str] = []
    before: tuple[int, int, str] | None = None
    documents = batch.document_n.tolist()
    for n, (word, start, _) in enumerate(_token_words(batch, texts)):
        place = (documents[n], start, word)
        if place != before:
            words_g.append(word)
        group_n[n], before = len(words_g) - 1, place
    return group_n, words_g


def _token_words(batch: TextBatch, texts: Sequence[str]) -> list[tuple[str, int, int]]:
    """The word of each token, the word's first character, and the token's last + 1."""
    words: list[tuple[str, int, int]] = []
    document = -1
    spans: list[tuple[int, int]] = []
    starts: list[int] = []
    for index, (start, end) in zip(batch.document_n.tolist(), batch.span_n2.tolist(), strict=True):
        if index != document:
            document = index
            spans = [match.span() for match in _WORD.finditer(texts[document])]
            starts = [first for first, _ in spans]
        if start == end:
            words.append((_EOS_WORD if end else _BOS_WORD, start, end))
            continue
        text = texts[document]
        # Many tokenizers count the space before a word as part of its token.
        start += len(text[start:end]) - len(text[start:end].lstrip())
        at = bisect_right(starts, start) - 1
        inside = at >= 0 and spans[at][0] <= start < spans[at][1]
        first, last = spans[at] if inside else (start, end)
        words.append((text[first:last].lower(), first, end))
    return words


def snippet(text: str, start: int, end: int, window: int) -> str:
    """Text around characters `start`..`end`, which stand in «»; control signs become spaces."""
    before, token, after = text[max(0, start - window) : start], text[start:end], text[end:]
    lead = "…" if start > window else ""
    tail = "…" if len(after) > window else ""
    space = token[: len(token) - len(token.lstrip())]
    marked = f"{lead}{before}{space}«{token.strip()}»{after[:window]}{tail}"
    return CONTROL.sub(" ", marked)
