"""Words in context for a search by cosine (LatentLens, arXiv 2602.00462).

One pass of the language model over the text keeps the residual stream of tokens after several
blocks. In a causal model the stream at a token depends on what stands before it alone: tokens that
follow the same text have one vector and are kept once.

Suffixes: n token, l layer, d width of the residual stream, m tokens of a batch that are kept.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from hashlib import blake2b

import numpy as np
import torch

from vista.config.sae import TextPass
from vista.config.text_index import TextIndexSettings
from vista.errors import UserError
from vista.language.model import LanguageModel
from vista.language.words import vocabulary
from vista.progress import progress
from vista.sae.activations import TextBatch, text_streams
from vista.store.text_index import TextIndex


def index_text(
    llm: LanguageModel, texts: Sequence[str], layers: Sequence[int], settings: TextIndexSettings
) -> TextIndex:
    """Return the tokens of `texts` that the settings keep, with their stream after `layers`.

    Documents are read in random order, BOS left out, and so are tokens without a text.

    Raises:
        UserError: The model has no such block, or the texts hold no word.
    """
    order = np.random.default_rng(settings.seed).permutation(len(texts))
    shuffled = [texts[i] for i in order]
    size = llm.model.get_input_embeddings().weight.shape[0]
    words, word_v = vocabulary(llm.tokenizer, size)
    reading = TextPass(
        batch_documents=settings.batch_documents,
        max_length=settings.max_length,
        skip_first=settings.skip_first,
    )
    chooser = _Chooser(shuffled, word_v.tolist(), settings.per_word)
    vectors, norms, ids, contexts = [], [], [], []
    passes = text_streams(llm, shuffled, layers, reading, settings.tokens)
    for batches in progress(passes, desc="text", unit="batch"):
        some = next(iter(batches.values()))
        kept_m = chooser.choose(some)
        stream_mld = torch.stack(
            [batches[layer].stream_nd[kept_m].float().cpu() for layer in layers], dim=1
        )
        norm_ml = stream_mld.norm(dim=-1)
        unit_mld = stream_mld / norm_ml.clamp_min(1e-30)[..., None]
        vectors.append(unit_mld.numpy().astype(np.float16))
        norms.append(norm_ml.numpy())
        ids.append(some.ids_n[kept_m].astype(np.int32))
        for document, (start, end) in zip(
            some.document_n[kept_m].tolist(), some.span_n2[kept_m].tolist(), strict=True
        ):
            contexts.append(shuffled[document][max(0, start - settings.context) : end])
    id_n = np.concatenate(ids)
    if not len(id_n):
        raise UserError(
            "the text has no word to index; lower index.skip_first, or check the file of `text`"
        )
    return TextIndex(
        tuple(layers),
        np.concatenate(vectors),
        np.concatenate(norms),
        id_n,
        [words[word_v[i]] for i in id_n],
        contexts,
    )


class _Chooser:
    """Chooses the tokens that are kept: of each word so many, and none twice in one context."""

    def __init__(self, texts: Sequence[str], word_v: Sequence[int], per_word: int) -> None:
        self._texts, self._word_v, self._per_word = texts, word_v, per_word
        self._counts: Counter[int] = Counter()
        self._seen: set[bytes] = set()

    def choose(self, batch: TextBatch) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        """Return the tokens of a batch that are kept."""
        kept = []
        spans = zip(
            batch.document_n.tolist(), batch.ids_n.tolist(), batch.span_n2.tolist(), strict=True
        )
        for n, (document, token, (_, end)) in enumerate(spans):
            word = self._word_v[token]
            if word == 0 or self._counts[word] >= self._per_word:
                continue
            prefix = f"{token}\n{self._texts[document][:end]}".encode()
            key = blake2b(prefix, digest_size=16).digest()
            if key not in self._seen:
                self._seen.add(key)
                self._counts[word] += 1
                kept.append(n)
        return np.array(kept, dtype=np.int64)
