"""Nearest vectors by cosine: of tokens among the rows of an embedding, and by word.

A long vector has no advantage: rows and tokens are divided by their norms first. Similarities are
computed in float32, some rows and tokens at a time.

Shape suffixes: n token, v row of an embedding (a token of the vocabulary, or a stored vector),
d width of the residual stream, m rows of one chunk, w word, k nearest words.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

# Similarities that are in memory at once: 64 MB of float32.
_CELLS = 1 << 24
# Rows that are converted to float32 at once.
_ROWS = 1 << 14


@dataclass(frozen=True)
class WordVectors:
    """Vectors that stand for words.

    Attributes:
        vectors_vd: The vectors, of any length and any dtype of floats.
        word_v: Number of each vector's word; 0 is no word and never read.
        n_words: Words that there are, number 0 included.
    """

    vectors_vd: Tensor
    word_v: Tensor
    n_words: int

    def __post_init__(self) -> None:
        if self.vectors_vd.ndim != 2 or self.word_v.shape != self.vectors_vd.shape[:1]:
            raise ValueError(
                f"vectors {tuple(self.vectors_vd.shape)} need one word each, not "
                f"{tuple(self.word_v.shape)}"
            )


@dataclass(frozen=True)
class NearestWords:
    """The nearest words of some tokens, nearest first.

    Attributes:
        word_nk: Number of the word.
        cosine_nk: Largest cosine between the token and a vector of that word.
        row_n: Row of the vector that is nearest of all.
    """

    word_nk: NDArray[np.int64]
    cosine_nk: NDArray[np.float32]
    row_n: NDArray[np.int64]


@torch.no_grad()
def nearest_words(
    tokens_nd: Tensor, embedding_vd: Tensor, among_v: Tensor | None = None
) -> NDArray[np.int64]:
    """Return the row of `embedding_vd` with the largest cosine to each token, [n].

    Of rows that are equally near the first one counts.

    Args:
        tokens_nd: Tokens, for instance visual ones.
        embedding_vd: Rows to choose from: a language model's input embedding.
        among_v: True for the rows that may be chosen (no special tokens, say); None: all.

    Raises:
        ValueError: Widths differ, or no row may be chosen.
    """
    _check_widths(tokens_nd, embedding_vd)
    if not len(embedding_vd) or (among_v is not None and not among_v.any()):
        raise ValueError("no row of the embedding may be chosen")
    parts = []
    for unit_nd in _token_chunks(tokens_nd, embedding_vd, min(_ROWS, len(embedding_vd))):
        best = _Best(len(unit_nd), unit_nd.device)
        for start, unit_md in _row_chunks(embedding_vd):
            cosine_mn = unit_md @ unit_nd.T
            if among_v is not None:
                allowed_m = among_v[start : start + len(unit_md)].to(cosine_mn.device)
                cosine_mn[~allowed_m] = -torch.inf
            best.update(cosine_mn, start)
        parts.append(best.row_n.cpu().numpy())
    return np.concatenate([np.zeros(0, np.int64), *parts])


@torch.no_grad()
def nearest_by_word(tokens_nd: Tensor, vectors: WordVectors, k: int) -> NearestWords:
    """Return the k nearest words of each token. A word is as near as its nearest vector, so that
    several vectors of one word take one place.

    There are at most as many as words with a vector.

    Raises:
        ValueError: Widths differ, or no vector has a word.
    """
    _check_widths(tokens_nd, vectors.vectors_vd)
    k = min(k, len(torch.unique(vectors.word_v[vectors.word_v > 0])))
    if k < 1:
        raise ValueError("no vector has a word")
    cells = max(vectors.n_words, min(_ROWS, len(vectors.word_v)))
    parts = []
    for unit_nd in _token_chunks(tokens_nd, vectors.vectors_vd, cells):
        n, device = len(unit_nd), unit_nd.device
        best = _Best(n, device)
        cosine_wn = torch.full((vectors.n_words, n), -torch.inf, device=device)
        for start, unit_md in _row_chunks(vectors.vectors_vd):
            word_m = vectors.word_v[start : start + len(unit_md)].to(device)
            cosine_mn = unit_md @ unit_nd.T
            cosine_mn[word_m == 0] = -torch.inf
            best.update(cosine_mn, start)
            cosine_wn.scatter_reduce_(0, word_m[:, None].expand(-1, n), cosine_mn, "amax")
        cosine_nk, word_nk = cosine_wn.T.topk(k)
        parts.append([column.cpu().numpy() for column in (word_nk, cosine_nk, best.row_n)])
    empty = [np.zeros((0, k), np.int64), np.zeros((0, k), np.float32), np.zeros(0, np.int64)]
    return NearestWords(*(np.concatenate(column) for column in zip(empty, *parts, strict=True)))


class _Best:
    """The nearest row of each token so far."""

    def __init__(self, n: int, device: Any) -> None:
        self.cosine_n = torch.full((n,), -torch.inf, device=device)
        self.row_n = torch.zeros(n, dtype=torch.int64, device=device)

    def update(self, cosine_mn: Tensor, start: int) -> None:
        value_n, row_n = cosine_mn.max(dim=0)
        nearer_n = value_n > self.cosine_n
        self.cosine_n[nearer_n] = value_n[nearer_n]
        self.row_n[nearer_n] = row_n[nearer_n] + start


def _token_chunks(tokens_nd: Tensor, rows_vd: Tensor, cells: int) -> Iterator[Tensor]:
    """Yield tokens as unit vectors where the rows lie, so many that `cells` of each fit."""
    for part_nd in torch.split(tokens_nd, max(1, _CELLS // max(cells, 1))):
        if len(part_nd):
            yield _unit(part_nd.to(rows_vd.device))


def _row_chunks(rows_vd: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Yield rows as unit vectors, with the number of the first."""
    for start in range(0, len(rows_vd), _ROWS):
        yield start, _unit(rows_vd[start : start + _ROWS])


def _unit(vectors_nd: Tensor) -> Tensor:
    """Divide by the norms; a vector of zeros stays one."""
    return torch.nn.functional.normalize(vectors_nd.float(), dim=-1, eps=1e-30)


def _check_widths(tokens_nd: Tensor, rows_vd: Tensor) -> None:
    if tokens_nd.shape[-1] != rows_vd.shape[-1]:
        raise ValueError(f"tokens of width {tokens_nd.shape[-1]}, rows of {rows_vd.shape[-1]}")
