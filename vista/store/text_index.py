"""The index of words in context: the residual stream of text tokens after several blocks.

The group holds, for each token [token]: `vector` [token, layer, channel], its stream after each
layer divided by its norm (float16), `norm` [token, layer] (float32), `id` (token id), `word` (its
text) and `context` (what stands before it in its document, and the token); and the coordinate
`layer`. Any Zarr v3 reader opens it.

Suffixes: n token, l layer, d width of the residual stream.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vista.store.arrays import ArraySpec
from vista.store.tree import StoreWriter, open_tree

FORMAT = "vista text index 1"
STORE = "text_index.zarr"
_CHUNK, _SHARD = 256, 1 << 14


@dataclass(frozen=True)
class TextIndex:
    """Text tokens with their residual stream.

    Attributes:
        layers: Blocks after which the stream was read, counted from 0.
        vectors_nld: Stream divided by its norm.
        norm_nl: Its norm.
        id_n: Token ids.
        words: Texts of the tokens.
        contexts: What stands before each token in its document, and the token.
    """

    layers: tuple[int, ...]
    vectors_nld: NDArray[np.float16]
    norm_nl: NDArray[np.float32]
    id_n: NDArray[np.int32]
    words: Sequence[str]
    contexts: Sequence[str]

    def write(self, path: Path) -> None:
        """Write the store at `path`."""
        writer = StoreWriter(path, {"format": FORMAT}, {}, {})
        writer.add("layer", *_column(np.array(self.layers, np.int32), "layer", "block, from 0"))
        vectors = self.vectors_nld
        spec = ArraySpec(
            vectors.shape,
            np.dtype(np.float16),
            ("token", "layer", "channel"),
            _CHUNK,
            _SHARD,
            compress=False,
            attributes={"units": "1", "long_name": "residual stream divided by its norm"},
        )
        writer.add("vector", spec, vectors)
        norms = self.norm_nl
        spec = ArraySpec(
            norms.shape,
            np.dtype(np.float32),
            ("token", "layer"),
            _SHARD,
            _SHARD,
            attributes={"units": "activation", "long_name": "norm of the residual stream"},
        )
        writer.add("norm", spec, norms)
        writer.add("id", *_column(self.id_n, "token", "token id"))
        writer.add("word", *_column(_texts(self.words), "token", "text of the token"))
        writer.add("context", *_column(_texts(self.contexts), "token", "text up to the token"))
        writer.seal()

    @classmethod
    def read(cls, path: Path) -> TextIndex:
        """Read the store at `path`. Raises UserError where it is missing or damaged."""
        tree = open_tree(path, FORMAT)
        return cls(
            tuple(int(layer) for layer in tree.array("layer").all()),
            tree.array("vector").all(),
            tree.array("norm").all(),
            tree.array("id").all(),
            tree.array("word").all().tolist(),
            tree.array("context").all().tolist(),
        )


def _texts(texts: Sequence[str]) -> NDArray[Any]:
    values = np.empty(len(texts), dtype=object)
    values[:] = texts
    return values


def _column(values: NDArray[Any], dim: str, meaning: str) -> tuple[ArraySpec, NDArray[Any]]:
    dtype = None if values.dtype == object else values.dtype
    attributes = {"units": "1", "long_name": meaning}
    return ArraySpec(values.shape, dtype, (dim,), _SHARD, _SHARD, attributes=attributes), values
