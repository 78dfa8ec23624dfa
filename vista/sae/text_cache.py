"""The residual stream of text tokens on disk: one pass of the language model for all its SAEs.

`<split>-l<layer>.bin` holds the stream [n, d] as bare values, to be memory-mapped;
`<split>.parquet` a row for each of its tokens; `facts.json` layers, width and number format.
Batches are those that the model read, so that documents are whole.

Shape legend: n token, d width of the residual stream.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from vista.config.sae import CacheTextSettings, TokenFilter
from vista.errors import UserError
from vista.language.model import LanguageModel
from vista.progress import progress
from vista.sae.activations import Ints, TextBatch, normal_tokens, text_streams

FACTS = "facts.json"
SPLITS = ("train", "heldout")
# Columns of a split's table; `place` as of `TextBatch`, `within` counts a document's tokens.
_COLUMNS = ("batch", "id", "document", "start", "end", "place", "within")


def stream_file(split: str, layer: int) -> str:
    """Name of the file of one layer's stream."""
    return f"{split}-l{layer}.bin"


def tokens_file(split: str) -> str:
    """Name of the table of tokens."""
    return f"{split}.parquet"


def write_cache(
    llm: LanguageModel,
    texts: Mapping[str, Sequence[str]],
    layers: Collection[int],
    settings: CacheTextSettings,
    folder: Path,
) -> None:
    """Read `texts` (by split) and write the stream after each of `layers` into `folder`.

    Documents of "train" are read in random order, those of "heldout" in theirs.

    Raises UserError where the texts hold no token, the model has no such block, or its stream does
    not fit into the number format.
    """
    rng = np.random.default_rng(settings.seed)
    for split, tokens in zip(SPLITS, (settings.tokens, settings.heldout_tokens), strict=True):
        n = len(texts[split])
        order = rng.permutation(n) if split == "train" else np.arange(n)
        shuffled = [texts[split][i] for i in order]
        passes = text_streams(llm, shuffled, layers, settings.text, tokens)
        rows: list[Ints] = []
        with ExitStack() as stack:
            files = {
                layer: stack.enter_context((folder / stream_file(split, layer)).open("wb"))
                for layer in layers
            }
            for batch in progress(passes, desc=f"{split} text", unit="batch"):
                some = next(iter(batch.values()))
                # Documents of a batch stand in the order of the texts, here those before shuffling.
                by_n = np.argsort(order[some.document_n], kind="stable")
                for layer, file in files.items():
                    file.write(_values(batch[layer].stream_nd[torch.from_numpy(by_n)], settings))
                rows.append(_rows(some, order, by_n, len(rows)))
        table = dict(zip(_COLUMNS, np.concatenate(rows, axis=1), strict=True))
        pq.write_table(pa.table(table), folder / tokens_file(split), compression="zstd")
    facts = {
        "layers": sorted(layers),
        "d_model": llm.d_model,
        "dtype": settings.dtype,
        "model_type": llm.model.config.model_type,
    }
    (folder / FACTS).write_text(json.dumps(facts, sort_keys=True, indent=1) + "\n", "utf-8")


def _values(stream_nd: torch.Tensor, settings: CacheTextSettings) -> bytes:
    values = stream_nd.cpu().numpy().astype(np.dtype(settings.dtype).newbyteorder("<"))
    if not np.isfinite(values).all():
        raise UserError(
            f"the residual stream holds NaN or does not fit into {settings.dtype}; write "
            "saes.cache_text.dtype: float32, or load the language model with another dtype"
        )
    return values.tobytes()


def _rows(batch: TextBatch, order: Ints, by_n: Ints, number: int) -> Ints:
    """The columns of a batch's tokens."""
    document_n = order[batch.document_n][by_n]
    _, first, inverse = np.unique(document_n, return_index=True, return_inverse=True)
    place = np.arange(len(by_n))
    columns = (
        np.full(len(by_n), number),
        batch.ids_n[by_n],
        document_n,
        *batch.span_n2[by_n].T,
        batch.place_n[by_n],
        place - first[inverse],
    )
    return np.stack(columns).astype(np.int64)


@dataclass(frozen=True)
class CachedText:
    """One split's tokens of a cache: their stream after one block, memory-mapped."""

    stream_nd: np.ndarray[Any, Any]
    columns: Mapping[str, Ints]
    model_type: str
    device: torch.device

    @property
    def d_model(self) -> int:
        """Width of the stream."""
        return int(self.stream_nd.shape[1])

    @classmethod
    def open(
        cls, facts: Path, table: Path, stream: Path, layer: int, device: torch.device
    ) -> CachedText:
        """Open the files of one split and layer.

        Raises UserError where the layer is not cached, or the files do not fit together.
        """
        known = json.loads(facts.read_text(encoding="utf-8"))
        if layer not in known["layers"]:
            raise UserError(
                f"{facts.parent}: layer {layer} is not in this cache of layers {known['layers']}; "
                "add it to saes.layers"
            )
        read = pq.read_table(table)
        columns = {name: read[name].to_numpy() for name in _COLUMNS}
        dtype, width = np.dtype(known["dtype"]).newbyteorder("<"), int(known["d_model"])
        if stream.stat().st_size != read.num_rows * width * dtype.itemsize:
            raise UserError(
                f"{stream} does not hold {read.num_rows} tokens of width {width}; remove its "
                "folder and run again"
            )
        shape = (read.num_rows, width)
        values = np.memmap(stream, dtype, "r", shape=shape)
        return cls(values, columns, known["model_type"], device)

    def batches(self, chosen: TokenFilter, tokens: int) -> Iterator[TextBatch]:
        """Yield the batches as the model read them, of the documents that begin within the first
        `tokens` tokens, on the device.

        Of `chosen`, `skip_first` and `max_norm_ratio` leave tokens out.
        """
        return normal_tokens(self._batches(chosen.skip_first, tokens), chosen.max_norm_ratio)

    def _batches(self, skip_first: int, tokens: int) -> Iterator[TextBatch]:
        columns = self.columns
        # Not the first batches: documents of a window are sorted by length.
        begins_n = columns["place"] - columns["within"]
        kept = np.flatnonzero((begins_n < tokens) & (columns["within"] >= skip_first))
        if not len(kept):
            raise UserError("the cached text has no tokens to read; lower saes.tokens.skip_first")
        ends = np.flatnonzero(np.diff(columns["batch"][kept])) + 1
        for rows in np.split(kept, ends):
            stream_nd = torch.from_numpy(self.stream_nd[rows].astype(np.float32))
            yield TextBatch(
                stream_nd.to(self.device),
                columns["id"][rows],
                columns["document"][rows],
                np.stack([columns["start"][rows], columns["end"][rows]], axis=1),
                columns["place"][rows],
            )
