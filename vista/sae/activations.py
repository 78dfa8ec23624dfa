"""One streaming pass of text documents through a language model, read after one or more blocks.

Padding never counts; BOS counts only where a setting asks for it (its stream is an outlier that
would dominate every mean and every SAE). Documents are sorted by length within windows, so that
little of a batch is padding. Memory is that of one batch, and of a window's tokens.

Shape legend: b document of the batch, t token of a document, n token of the batch (documents one
after another), d width of the residual stream.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, Protocol, TypeVar

import numpy as np
import torch

from vista.config.sae import TextPass
from vista.errors import UserError
from vista.language.model import LanguageModel

# Tokens of a window, at least, if the text has them.
_WINDOW_TOKENS = 65_536
# Tokens from which the median of norms is taken, at least, if there are as many.
_MEDIAN_TOKENS = 1000

Ints = np.ndarray[Any, np.dtype[np.int64]]
Row = list[tuple[int, tuple[int, int]]]


class _Sized(Protocol):
    def __len__(self) -> int: ...


Batch = TypeVar("Batch", bound=_Sized)


@dataclass(frozen=True)
class TextBatch:
    """Text tokens of some whole documents, in the order of the texts.

    stream_nd: float32 residual stream after the block; ids_n: token ids; document_n: index of the
    token's document among all texts; span_n2: its first and last + 1 character in that document
    (the same twice for BOS and end-of-sequence tokens); place_n: place of the token among all that
    count, documents in the order of the texts.
    """

    stream_nd: torch.Tensor
    ids_n: Ints
    document_n: Ints
    span_n2: Ints
    place_n: Ints

    def __len__(self) -> int:
        return len(self.ids_n)

    def rows(self, rows: slice | torch.Tensor) -> TextBatch:
        """Some of the tokens: a slice, or a mask [n]."""
        at = rows if isinstance(rows, slice) else rows.cpu().numpy()
        return TextBatch(
            self.stream_nd[rows],
            self.ids_n[at],
            self.document_n[at],
            self.span_n2[at],
            self.place_n[at],
        )


def text_activations(
    llm: LanguageModel,
    texts: Sequence[str],
    layer: int,
    settings: TextPass,
    tokens: int | None = None,
) -> Iterator[TextBatch]:
    """Yield the residual stream after block `layer` (counted from 0) of `texts`, batch by batch.

    Each document is read on its own, as BOS + its tokens, cut off after `settings.max_length`.
    With `tokens`: groups of `settings.batch_documents` documents are read until they hold that many
    tokens that count, those included that are then left out for their norm.
    Raises UserError where the model has no such block, or the texts hold no token.
    """
    streams = text_streams(llm, texts, (layer,), settings, tokens)
    return normal_tokens((batches[layer] for batches in streams), settings.max_norm_ratio)


def text_streams(
    llm: LanguageModel,
    texts: Sequence[str],
    layers: Collection[int],
    settings: TextPass,
    tokens: int | None = None,
) -> Iterator[dict[int, TextBatch]]:
    """Yield the batches of `text_activations` of several layers from one pass of the model; no
    token is left out for its norm."""
    for layer in layers:
        if not 0 <= layer < llm.n_blocks:
            raise UserError(
                f"layer {layer} does not exist: the language model has blocks "
                f"0..{llm.n_blocks - 1}; choose one of them"
            )
    size, empty = settings.batch_documents, True
    for window in _windows(llm, texts, settings, tokens):
        empty = False
        documents = sorted(window, key=lambda document: len(document.row))
        for start in range(0, len(documents), size):
            alike = documents[start : start + size]
            yield _read(llm, sorted(alike, key=lambda document: document.index), layers)
    if empty:
        raise UserError("the text has no tokens to read; check the file behind `text`")


def normal_tokens(batches: Iterable[TextBatch], ratio: float | None) -> Iterator[TextBatch]:
    """Leave out tokens whose norm exceeds `ratio` x the median norm; None: no token is left out.

    At some tokens a few dimensions are hundreds of times larger than at others (Sun et al. 2024,
    Massive activations in large language models): they carry most of the variance.
    """
    if ratio is None:
        yield from batches
        return
    first, batches = peeked(batches)
    limit = ratio * norm_median([batch.stream_nd for batch in first])
    for batch in batches:
        normal_n = batch.stream_nd.norm(dim=1) <= limit
        if normal_n.any():
            yield batch.rows(normal_n)


def peeked(batches: Iterable[Batch]) -> tuple[list[Batch], Iterator[Batch]]:
    """The first batches, with tokens enough for a median of norms; and all batches."""
    rest = iter(batches)
    first: list[Batch] = []
    for batch in rest:
        first.append(batch)
        if sum(map(len, first)) >= _MEDIAN_TOKENS:
            break
    return first, chain(first, rest)


def norm_median(streams: Sequence[torch.Tensor]) -> float:
    """Median of the norms of all tokens of `streams` [n, d], at least one."""
    return float(torch.cat([stream_nd.float().norm(dim=1) for stream_nd in streams]).median())


def whole_documents(batch: TextBatch, tokens: int) -> Iterator[TextBatch]:
    """Split a batch between documents into parts of at most `tokens` tokens; a document that is
    longer than that is a part of its own."""
    starts = np.unique(batch.document_n, return_index=True)[1].tolist()
    ends = [*starts[1:], len(batch)]
    first = 0
    for start, end in zip(starts, ends, strict=True):
        if end - first > tokens and start > first:
            yield batch.rows(slice(first, start))
            first = start
    yield batch.rows(slice(first, len(batch)))


@dataclass(frozen=True)
class _Document:
    """A tokenized document: its index among the texts, its tokens with any BOS, how many of them
    at its start do not count, and the place of the first that does."""

    index: int
    row: Row
    skipped: int
    place: int


def _windows(
    llm: LanguageModel, texts: Sequence[str], settings: TextPass, tokens: int | None
) -> Iterator[list[_Document]]:
    """Documents with a token that counts, in the order of the texts; whole groups of
    `batch_documents`, until `tokens` tokens count."""
    bos = llm.tokenizer.bos_token_id
    lead: Row = [] if bos is None else [(int(bos), (0, 0))]
    skipped = 0 if settings.include_bos else len(lead) + settings.skip_first
    place = held = 0
    window: list[_Document] = []
    for start in range(0, len(texts), settings.batch_documents):
        group = texts[start : start + settings.batch_documents]
        for index, ids in enumerate(_tokenize(llm.tokenizer, group, settings.max_length), start):
            row = [*lead, *ids][: settings.max_length]
            if len(row) > skipped:
                window.append(_Document(index, row, skipped, place))
                place += len(row) - skipped
                held += len(row)
        ends = tokens is not None and place >= tokens
        if window and (held >= _WINDOW_TOKENS or ends):
            yield window
            window, held = [], 0
        if ends:
            return
    if window:
        yield window


def _read(
    llm: LanguageModel, documents: Sequence[_Document], layers: Collection[int]
) -> dict[int, TextBatch]:
    """One batch after each of the layers."""
    length = max(len(document.row) for document in documents)
    filler = [(llm.tokenizer.pad_token_id or 0, (0, 0))]
    padded = [document.row + filler * (length - len(document.row)) for document in documents]
    ids_bt = torch.tensor([[token for token, _ in row] for row in padded])
    mask_bt = torch.zeros_like(ids_bt)
    for b, document in enumerate(documents):
        mask_bt[b, : len(document.row)] = 1
    counted_bt = mask_bt.bool()
    counted_bt[:, : documents[0].skipped] = False
    with torch.no_grad():
        forward = llm.forward(
            ids_bt.to(llm.device), mask_bt.to(llm.device), taps=layers, stop_after=max(layers)
        )
    b_n, t_n = counted_bt.numpy().nonzero()
    place_b = np.array([document.place - document.skipped for document in documents])
    span_bt2 = np.array([[span for _, span in row] for row in padded], dtype=np.int64)
    tokens = TextBatch(
        stream_nd=torch.empty(0),
        ids_n=ids_bt[counted_bt].numpy(),
        document_n=np.array([document.index for document in documents])[b_n],
        span_n2=span_bt2[b_n, t_n],
        place_n=place_b[b_n] + t_n,
    )
    return {
        layer: replace(
            tokens,
            stream_nd=forward.taps[layer][counted_bt.to(llm.layer_device(layer))].float(),
        )
        for layer in layers
    }


def _tokenize(tokenizer: Any, texts: Sequence[str], max_length: int) -> list[Row]:
    """Token ids of each document with the characters that they stand for; no BOS."""
    parts = [part for text in texts for part in split_fields(text)]
    encoded = tokenizer(
        [text for text, _, _ in parts],
        add_special_tokens=False,  # BOS is set elsewhere, once, whatever the template does
        return_offsets_mapping=True,
        truncation=True,
        max_length=max_length,
    )
    spans = iter(zip(encoded["input_ids"], encoded["offset_mapping"], strict=True))
    documents = []
    for text in texts:
        tokens: Row = []
        for part, base, is_answer in split_fields(text):
            ids, offsets = next(spans)
            tokens += [
                (token, (start + base, end + base))
                for token, (start, end) in zip(ids, offsets, strict=True)
            ]
            if is_answer and tokenizer.eos_token_id is not None:
                end = base + len(part)
                tokens.append((int(tokenizer.eos_token_id), (end, end)))
        documents.append(tokens)
    return documents


def split_fields(text: str) -> list[tuple[str, int, bool]]:
    """(field, its first character, whether it is an answer) of a document's fields.

    Fields are parted by tabs: an opening (where their number is odd), then question, answer,
    question, answer, ... An answer ends with the model's end-of-sequence token, as in training and
    in a prompt after an image. A text without tabs is an opening alone.
    """
    fields = text.split("\t")
    opening = len(fields) % 2
    spans, base = [], 0
    for i, field in enumerate(fields):
        spans.append((field, base, i >= opening and (i - opening) % 2 == 1))
        base += len(field) + 1
    return spans
