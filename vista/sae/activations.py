"""One streaming pass of text documents through a language model, read after one block.

Padding never counts; BOS counts only where a setting asks for it (its stream is an outlier that
would dominate every mean and every SAE). Memory is that of one batch of documents.

Shape legend: b document of the batch, t token of a document, n token of the batch (documents one
after another), d width of the residual stream.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from vista.config.sae import TextPass
from vista.errors import UserError
from vista.language.model import LanguageModel


@dataclass(frozen=True)
class TextBatch:
    """Text tokens of some whole documents, in reading order.

    stream_nd: float32 residual stream after the block; ids_n: token ids; document_n: index of the
    token's document among all texts; span_n2: its first and last + 1 character in that document
    (the same twice for BOS and end-of-sequence tokens).
    """

    stream_nd: torch.Tensor
    ids_n: np.ndarray[Any, np.dtype[np.int64]]
    document_n: np.ndarray[Any, np.dtype[np.int64]]
    span_n2: np.ndarray[Any, np.dtype[np.int64]]

    def __len__(self) -> int:
        return len(self.ids_n)


def text_activations(
    llm: LanguageModel, texts: Sequence[str], layer: int, settings: TextPass
) -> Iterator[TextBatch]:
    """Yield the residual stream after block `layer` (counted from 0) of `texts`, batch by batch.

    Each document is read on its own, as BOS + its tokens, cut off after `settings.max_length`.
    Raises UserError where the model has no such block, or the texts hold no token.
    """
    if not 0 <= layer < llm.n_blocks:
        raise UserError(
            f"layer {layer} does not exist: the language model has blocks 0..{llm.n_blocks - 1}; "
            "choose one of them"
        )
    seen = 0
    for start in range(0, len(texts), settings.batch_documents):
        batch = _read(llm, texts[start : start + settings.batch_documents], layer, settings)
        if batch is None:
            continue
        seen += len(batch)
        yield TextBatch(batch.stream_nd, batch.ids_n, batch.document_n + start, batch.span_n2)
    if not seen:
        raise UserError("the text has no tokens to read; check the file behind `text`")


def whole_documents(batch: TextBatch, tokens: int) -> Iterator[TextBatch]:
    """Split a batch between documents into parts of at most `tokens` tokens; a document that is
    longer than that is a part of its own."""
    starts = np.unique(batch.document_n, return_index=True)[1].tolist()
    ends = [*starts[1:], len(batch)]
    first = 0
    for start, end in zip(starts, ends, strict=True):
        if end - first > tokens and start > first:
            yield _part(batch, first, start)
            first = start
    yield _part(batch, first, len(batch))


def _part(batch: TextBatch, start: int, end: int) -> TextBatch:
    rows = slice(start, end)
    return TextBatch(
        batch.stream_nd[rows], batch.ids_n[rows], batch.document_n[rows], batch.span_n2[rows]
    )


def first_tokens(batches: Iterator[TextBatch], tokens: int) -> Iterator[TextBatch]:
    """Whole batches until at least `tokens` tokens have passed, or the text ends."""
    seen = 0
    for batch in batches:
        yield batch
        seen += len(batch)
        if seen >= tokens:
            return


def _read(
    llm: LanguageModel, texts: Sequence[str], layer: int, settings: TextPass
) -> TextBatch | None:
    """One batch; None where no document has a token that counts."""
    bos = llm.tokenizer.bos_token_id
    lead = [] if bos is None else [(int(bos), (0, 0))]
    rows = [
        [*lead, *tokens][: settings.max_length]
        for tokens in _tokenize(llm.tokenizer, texts, settings.max_length)
    ]
    length = max(map(len, rows), default=0)
    if length == 0:
        return None
    filler = [(llm.tokenizer.pad_token_id or 0, (0, 0))]
    padded = [row + filler * (length - len(row)) for row in rows]
    ids_bt = torch.tensor([[token for token, _ in row] for row in padded])
    mask_bt = torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in rows])
    counted_bt = mask_bt.bool()
    if lead and not settings.include_bos:
        counted_bt[:, 0] = False
    if not counted_bt.any():
        return None
    with torch.no_grad():
        forward = llm.forward(
            ids_bt.to(llm.device), mask_bt.to(llm.device), taps=(layer,), stop_after=layer
        )
    span_bt2 = np.array([[span for _, span in row] for row in padded], dtype=np.int64)
    return TextBatch(
        stream_nd=forward.taps[layer][counted_bt.to(llm.layer_device(layer))].float(),
        ids_n=ids_bt[counted_bt].numpy(),
        document_n=counted_bt.nonzero()[:, 0].numpy(),
        span_n2=span_bt2[counted_bt.numpy()],
    )


def _tokenize(
    tokenizer: Any, texts: Sequence[str], max_length: int
) -> list[list[tuple[int, tuple[int, int]]]]:
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
        tokens: list[tuple[int, tuple[int, int]]] = []
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
