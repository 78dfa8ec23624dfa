"""Sparse latents: the active SAE latents of every token, by layer and token kind, and the inverse.

Groups of the store:
- `tokens/<kind>`: `valid` [image, token].
- `layer_<l>/<kind>`: `index`, `value` [image, token, slot], whose first `nnz` [image, token] slots
  are in use; `error`, `norm2` [image, token]; `mean` [channel], and with totals `total`
  [shard, channel] and `total2` [image].
- `layer_<l>/by_latent`: the inverse over the valid image tokens (see by_latent.py).
All but the last have the coordinates `image` (ids) and, for image tokens, `row` and `column`.

With x the residual stream after block l: error = mean over channels of (SAE(x) - x)^2, norm2 = mean
over channels of x^2, total variance = mean(norm2) - mean(mean^2), and the fraction of variance
unexplained (FVU) = mean(error) / total variance, means over the valid tokens. `total2` is the mean
over channels of (sum of x over the image's valid tokens)^2, of which the variance between images
is made.

Every array is split along images: 4 in an inner chunk (zstd level 1 and CRC-32C), 256 in a shard
file. `index` and `value` of more than 512 slots are split along slots, too: 256 in a chunk and a
shard file, and of these files only those that a token reaches are written (see slots.py). Any Zarr
v3 reader and `xarray.open_datatree` open the store.

The format is "vista latents 2". Stores of the former "vista latents 1", whose slots are not split
and whose inverse has no histograms, are read as well, and so are "vista latents 2" without the
table of activations on top images.

Shape letters: b image, t token (of any kind), k slot, d width of the language model, s latent.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vista.store import latent_layout as layout
from vista.store.arrays import Array, ArrayReader
from vista.store.by_latent import Entries, Histogram, InverseReader
from vista.store.files import damaged
from vista.store.latent_writer import LatentWriter
from vista.store.slots import SlotReader, open_slots
from vista.store.tree import META, open_tree

__all__ = ["Entries", "Histogram", "LatentReader", "LatentWriter", "TokenLatents"]

_IDS = f"{layout.kind_group(layout.IMAGE_TOKENS)}/image"


@dataclass(frozen=True)
class TokenLatents:
    """The latents of tokens of consecutive images: `index`, `value` [b, t, k], the rest [b, t].

    k is the largest `nnz` of these tokens, at least 1. Slots from a token's `nnz` on are 0. Tokens
    that are not `valid` stand for nothing.
    """

    index: Array
    value: Array
    nnz: Array
    error: Array
    norm2: Array
    valid: NDArray[np.bool_]


class LatentReader:
    """Reads a latent store.

    `layers` gives the dictionary size of each layer, `kinds` the number of tokens of each token
    kind, `k` the slots of each layer; `image_ids` and `grid` (rows, columns) describe the images.
    Raises UserError naming the file where the store, a shard or a chunk is missing or damaged;
    KeyError for a layer or token kind that the store has not.
    """

    def __init__(self, path: Path) -> None:
        self._tree = open_tree(Path(path), layout.format_of(Path(path)))
        attributes = self._tree.attributes
        try:
            self.grid = (int(attributes["grid"][0]), int(attributes["grid"][1]))
            self.layers = {int(layer): int(size) for layer, size in attributes["layers"].items()}
            self.k = {int(layer): int(slots) for layer, slots in attributes["k"].items()}
            self.kinds = {str(kind): int(n) for kind, n in attributes["kinds"].items()}
        except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
            raise damaged(Path(path) / META, f"an attribute is missing ({error})") from error
        self.image_ids = [str(image_id) for image_id in self._tree.array(_IDS).all()]
        self._arrays: dict[str, ArrayReader] = {}
        self._slot_arrays: dict[str, SlotReader] = {}
        self._inverses: dict[int, InverseReader] = {}

    def slices(self, size: int = 64) -> Iterator[slice]:
        """Yield slices of at most `size` images over the whole store, to read it piece by piece."""
        for start in range(0, len(self.image_ids), size):
            yield slice(start, min(start + size, len(self.image_ids)))

    def tokens(self, layer: int, kind: str, images: slice = slice(None)) -> TokenLatents:
        """Return the latents of the tokens of consecutive images."""
        nnz, error, norm2 = (
            self.column(layer, kind, name, images) for name in ("nnz", "error", "norm2")
        )
        start, group = self._run(images).start, layout.layer_group(layer, kind)
        index, value = (
            self._slots(f"{group}/{name}").rows(start, nnz) for name in layout.SLOT_COLUMNS
        )
        return TokenLatents(index, value, nnz, error, norm2, self.valid(kind, images))

    def column(self, layer: int, kind: str, name: str, images: slice = slice(None)) -> Array:
        """Return one of index, value [b, t, k], nnz, error, norm2 [b, t] of consecutive images.

        k are all slots of the store; `tokens` gives those in use.
        """
        if layer not in self.layers or kind not in self.kinds or name not in layout.COLUMNS:
            raise KeyError(f"no {name} of layer {layer}, {kind} tokens; {self._contents()}")
        path = f"{layout.layer_group(layer, kind)}/{name}"
        if name not in layout.SLOT_COLUMNS or not self._slots(path).in_blocks:
            return self._rows(path, images)
        nnz = self.column(layer, kind, "nnz", images)
        return self._slots(path).rows(self._run(images).start, nnz, all_slots=True)

    def valid(self, kind: str, images: slice = slice(None)) -> NDArray[np.bool_]:
        """Return which tokens of consecutive images are there [b, t]."""
        if kind not in self.kinds:
            raise KeyError(f"no {kind} tokens; {self._contents()}")
        return self._rows(f"{layout.kind_group(kind)}/valid", images)

    def mean(self, layer: int, kind: str) -> NDArray[np.float64]:
        """Return the mean of the residual stream after block `layer` over the valid tokens [d]."""
        if layer not in self.layers or kind not in self.kinds:
            raise KeyError(f"no mean of layer {layer}, {kind} tokens; {self._contents()}")
        return self._array(f"{layout.layer_group(layer, kind)}/mean").all()

    def total2(
        self, layer: int, kind: str, images: slice = slice(None)
    ) -> NDArray[np.float64] | None:
        """Return the mean over channels of (sum of x over an image's valid tokens)^2 [b].

        None where the store has no totals, or was written before it kept these.
        """
        if layer not in self.layers or kind not in self.kinds:
            raise KeyError(f"no totals of layer {layer}, {kind} tokens; {self._contents()}")
        name = f"{layout.layer_group(layer, kind)}/{layout.TOTAL2}"
        return self._rows(name, images) if name in self._tree.nodes else None

    def by_latent(self, layer: int, latent: int) -> Entries:
        """Return the valid image tokens at which the latent fires: (image, token, value), each [n].

        By image, then token. A millisecond, however large the store is.
        """
        return self._inverse(layer).entries(self._latent(layer, latent))

    def top(self, layer: int, latent: int) -> Entries:
        """Return the (at most 64) images at which the latent fires most, strongest first.

        `token` is the first token of the image with the value; ties are in the order of images.
        """
        return self._inverse(layer).top(self._latent(layer, latent))

    def top_maps(self, layer: int, latent: int) -> Array | None:
        """Return the latent's activations on the tokens of its top images [rank, token].

        Images are in the order of `top`; the activation is 0 where the latent is silent. None in a
        store of an earlier version.
        """
        return self._inverse(layer).top_maps(self._latent(layer, latent))

    def histogram(self, layer: int, latent: int) -> Histogram | None:
        """Return the histogram of the latent's activations at valid image tokens.

        32 bins of equal width from 0 to its largest activation. All edges are 0 where it never
        fires. None in a store of an earlier version.
        """
        return self._inverse(layer).histogram(self._latent(layer, latent))

    def image_frequency(self, layer: int) -> NDArray[np.float64]:
        """Return for each latent the share of images at which it fires (any valid token) [s]."""
        return self._inverse(layer).image_counts() / len(self.image_ids)

    def token_frequency(self, layer: int) -> NDArray[np.float64]:
        """Return for each latent the share of the valid image tokens at which it fires [s]."""
        n_tokens = int(self.valid(layout.IMAGE_TOKENS).sum())
        return self._inverse(layer).token_counts() / max(n_tokens, 1)

    def _latent(self, layer: int, latent: int) -> int:
        if not 0 <= latent < self.layers[layer]:
            raise IndexError(f"latent {latent} of layer {layer}, which has {self.layers[layer]}")
        return latent

    def _inverse(self, layer: int) -> InverseReader:
        if layer not in self.layers:
            raise KeyError(f"no layer {layer}; {self._contents()}")
        if layer not in self._inverses:
            group = layout.layer_group(layer, layout.BY_LATENT)
            self._inverses[layer] = InverseReader(self._tree, group)
        return self._inverses[layer]

    def _contents(self) -> str:
        return f"{self._tree.path} has layers {sorted(self.layers)} and kinds {sorted(self.kinds)}"

    def _array(self, name: str) -> ArrayReader:
        if name not in self._arrays:
            self._arrays[name] = self._tree.array(name)
        return self._arrays[name]

    def _slots(self, name: str) -> SlotReader:
        if name not in self._slot_arrays:
            self._slot_arrays[name] = open_slots(self._tree, name)
        return self._slot_arrays[name]

    def _rows(self, name: str, images: slice) -> Array:
        run = self._run(images)
        return self._array(name).rows(run.start, run.stop)

    def _run(self, images: slice) -> range:
        start, stop, step = images.indices(len(self.image_ids))
        if step != 1:
            raise ValueError(f"images are read in runs: slice {images} has a step")
        return range(start, max(start, stop))
