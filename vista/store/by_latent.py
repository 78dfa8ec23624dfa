"""The inverse of a layer as arrays of the store: written once, then a millisecond a latent.

The group `layer_<l>/by_latent` holds a CSC matrix over the valid image tokens: the entries of
latent i are `offset[i]:offset[i + 1]` of `image_index`, `token_index` and `value`. Beside it for
each latent: `top_*` [latent, rank], the images at which it fires most, of which `top_used` are in
use, `image_count`, the number of images at which it fires, and `histogram` [latent, bin], how many
of its activations lie in each of 32 bins of equal width from 0 to its largest activation m, which
is `top_value` of rank 0. Bin i has i * m / 32 <= value < (i + 1) * m / 32; the last one has m as
well, the first one also values below 0. `top_map` [latent, rank, token] has the activations on the
tokens of the top images. Former stores have neither histograms nor `top_map`.

A page that shows one latent reads one chunk of each table, so their chunks are a few kB, and so is
the index of a shard. How many valid image tokens there are is an attribute of `offset`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vista.store.arrays import Array, ArrayReader, ArraySpec, ArrayWriter
from vista.store.inverse import (
    Band,
    Blocks,
    bands,
    count_entries,
    histograms,
    top_images,
    top_maps,
)
from vista.store.latent_layout import unsigned_for
from vista.store.tree import StoreTree, StoreWriter

TOP_IMAGES = 64
BINS = 32
_HISTOGRAM, _TOP_MAP = "histogram", "top_map"
# Attribute of `offset`.
_VALID_TOKENS = "valid_tokens"
_ENTRY_CHUNK, _ENTRY_CHUNKS_PER_SHARD = 1 << 14, 1 << 8
# Latents in a chunk, of arrays with one number a latent; those with many have fewer.
_LATENT_CHUNK, _TABLE_CHUNK = 256, 64
_OFFSET_CHUNK = 1024
# Bytes of a chunk of maps before compression; most of it is 0.
_MAP_BYTES = 1 << 16
_TABLE_CHUNKS_PER_SHARD = 1 << 9


class Entries(NamedTuple):
    """Where a latent fires: image and token positions and the activation there, all [n]."""

    image: NDArray[np.uint32]
    token: NDArray[Any]
    value: Array


class Histogram(NamedTuple):
    """Activations of a latent: how many lie in each bin [32], and the bins' edges [33]."""

    counts: NDArray[np.uint32]
    edges: NDArray[np.float64]


def write_inverse(
    store: StoreWriter,
    group: str,
    blocks: Blocks,
    d_sae: int,
    n_tokens: int,
    valid_tokens: int,
    budget: int,
) -> None:
    """Write the inverse of the latents that `blocks` gives into `group` of the store.

    An image has `n_tokens` tokens; of all images `valid_tokens` are valid. Holds at most `budget`
    entries (8 bytes each) at once; reads the blocks once more for each further `budget` entries.
    """
    token_dtype = unsigned_for(n_tokens - 1)
    counts = count_entries(blocks, d_sae)
    entries = _entry_specs(int(counts.sum()), token_dtype)
    tables = _table_specs(d_sae, token_dtype, n_tokens, valid_tokens)
    for name, spec in {**entries, **tables}.items():
        store.add_spec(f"{group}/{name}", spec)
    writers = {
        name: ArrayWriter(store.path / group / name, spec)
        for name, spec in {**entries, **tables}.items()
    }
    writers["offset"].put(0, np.concatenate([[0], np.cumsum(counts)]))
    written = 0
    for band in bands(blocks, counts, token_dtype, budget):
        for name, rows in _entry_columns(band).items():
            writers[name].put(written, rows)
        written += len(band.value)
        for part in band.parts():
            for name, rows in _table_columns(part, n_tokens).items():
                writers[name].put(part.low, rows)


def _entry_columns(band: Band) -> dict[str, Array]:
    return {"image_index": band.image, "token_index": band.token, "value": band.value}


def _table_columns(band: Band, n_tokens: int) -> dict[str, Array]:
    top = top_images(band, TOP_IMAGES)
    return {
        "top_image": top.image,
        "top_token": top.token,
        "top_value": top.value,
        "top_used": top.used,
        "image_count": top.images,
        _HISTOGRAM: histograms(band, BINS),
        _TOP_MAP: top_maps(band, top, n_tokens),
    }


def _entry_specs(n_entries: int, token_dtype: np.dtype[Any]) -> dict[str, ArraySpec]:
    chunk = min(_ENTRY_CHUNK, max(n_entries, 1))
    shard = chunk * min(_ENTRY_CHUNKS_PER_SHARD, max(1, -(-n_entries // chunk)))

    def spec(dtype: Any, units: str, long_name: str) -> ArraySpec:
        attributes = {"units": units, "long_name": long_name}
        return ArraySpec(
            (n_entries,), np.dtype(dtype), ("entry",), chunk, shard, attributes=attributes
        )

    return {
        "image_index": spec("uint32", "image", "position of the image, by latent"),
        "token_index": spec(token_dtype, "token", "position of the token in its image"),
        "value": spec("float16", "activation", "activation of the latent at the token"),
    }


def _table_specs(
    d_sae: int, token_dtype: np.dtype[Any], n_tokens: int, valid_tokens: int
) -> dict[str, ArraySpec]:
    sizes = {"latent": d_sae, "rank": TOP_IMAGES, "bin": BINS, "token": n_tokens}
    of_map = max(1, min(_TABLE_CHUNK, _MAP_BYTES // (2 * TOP_IMAGES * n_tokens)))
    bounds = {"units": "entry", "long_name": "first entry of each latent, and the end"}

    def spec(dtype: Any, dims: tuple[str, ...], units: str, long_name: str) -> ArraySpec:
        shape = tuple(sizes[dim] for dim in dims)
        chunk = min((_LATENT_CHUNK, _TABLE_CHUNK, of_map)[len(dims) - 1], d_sae)
        shard = chunk * min(_TABLE_CHUNKS_PER_SHARD, -(-d_sae // chunk))
        attributes = {"units": units, "long_name": long_name}
        return ArraySpec(shape, np.dtype(dtype), dims, chunk, shard, attributes=attributes)

    ranked, single = ("latent", "rank"), ("latent",)
    offset_chunk = min(_OFFSET_CHUNK, d_sae + 1)
    return {
        "offset": ArraySpec(
            (d_sae + 1,),
            np.dtype("int64"),
            ("latent_bound",),
            offset_chunk,
            offset_chunk * -(-(d_sae + 1) // offset_chunk),
            attributes={**bounds, _VALID_TOKENS: valid_tokens},
        ),
        "top_image": spec("uint32", ranked, "image", "images at which the latent fires most"),
        "top_token": spec(token_dtype, ranked, "token", "token of the image where it does"),
        "top_value": spec("float16", ranked, "activation", "activation there"),
        "top_used": spec("uint16", single, "1", "ranks in use"),
        "image_count": spec("uint32", single, "image", "images at which the latent fires"),
        _HISTOGRAM: spec(
            "uint32",
            ("latent", "bin"),
            "1",
            "activations in each of the equal parts of 0 to the latent's largest activation",
        ),
        _TOP_MAP: spec(
            "float16",
            ("latent", "rank", "token"),
            "activation",
            "activation on the tokens of the top images",
        ),
    }


class InverseReader:
    """Reads the inverse of one layer. Raises UserError where a file is missing or damaged."""

    def __init__(self, tree: StoreTree, group: str) -> None:
        self._tree, self._group = tree, group
        self._arrays: dict[str, ArrayReader] = {}
        self._offset: NDArray[np.int64] = self._array("offset").all()

    def entries(self, latent: int) -> Entries:
        """Return all entries of a latent, by image, then token."""
        start, stop = int(self._offset[latent]), int(self._offset[latent + 1])
        image, token, value = (
            self._array(name).rows(start, stop) for name in ("image_index", "token_index", "value")
        )
        return Entries(image, token, value)

    def top(self, latent: int) -> Entries:
        """Return the images at which a latent fires most, strongest first."""
        used = int(self._array("top_used").rows(latent, latent + 1)[0])
        image, token, value = (
            self._array(name).rows(latent, latent + 1)[0, :used]
            for name in ("top_image", "top_token", "top_value")
        )
        return Entries(image, token, value)

    def top_maps(self, latent: int) -> Array | None:
        """Return the activations on the tokens of the top images [rank, token]; None in a former
        store."""
        if f"{self._group}/{_TOP_MAP}" not in self._tree.nodes:
            return None
        used = int(self._array("top_used").rows(latent, latent + 1)[0])
        return self._array(_TOP_MAP).rows(latent, latent + 1)[0, :used]

    def histogram(self, latent: int) -> Histogram | None:
        """Return how the activations of a latent are distributed; None in a former store."""
        if f"{self._group}/{_HISTOGRAM}" not in self._tree.nodes:
            return None
        counts = self._array(_HISTOGRAM).rows(latent, latent + 1)[0]
        value = self.top(latent).value
        largest = max(0.0, float(value[0])) if len(value) else 0.0
        return Histogram(counts, np.linspace(0, largest, BINS + 1))

    def token_counts(self) -> NDArray[np.int64]:
        """Return at how many image tokens each latent fires [s]."""
        return np.diff(self._offset)

    def image_counts(self) -> NDArray[np.uint32]:
        """Return at how many images each latent fires [s]."""
        return self._array("image_count").all()

    def _array(self, name: str) -> ArrayReader:
        if name not in self._arrays:
            self._arrays[name] = self._tree.array(f"{self._group}/{name}")
        return self._arrays[name]
