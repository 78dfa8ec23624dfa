"""The inverse of sparse latents: where each latent fires (a CSC matrix), and its top images.

A two-pass counting sort: the first pass over the shards counts the entries of each latent, further
ones put them into place. Latents are taken in bands of at most `budget` entries, so that memory is
bounded however large the store is: about 8 bytes an entry of a band, and one shard.

Shape letters: b image, p token, k slot, s latent of the dictionary; entry = one (image, token) at
which a latent fires.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vista.store.arrays import Array

# Entries of the CSC held at once: 2**26 are 0.54 GB, and one more pass over the shards for each
# further 2**26 entries of the layer.
BUDGET = 1 << 26
# Entries and latents whose tables are made together; bounds the temporaries, which are 8 bytes an
# entry, and 2 bytes a token of each top image.
_PART_ENTRIES, _PART_LATENTS = 1 << 20, 256


@dataclass(frozen=True)
class Block:
    """Sparse latents of the images from `start` on: `index` and `value` [b, p, k], `count` [b, p].

    The first `count` slots of a token are in use; a token that does not count has 0.
    """

    start: int
    index_bpk: Array
    value_bpk: Array
    count_bp: Array


# Called once a pass, with False where the pass reads no values (`value_bpk` may then be anything).
Blocks = Callable[[bool], Iterable[Block]]


@dataclass(frozen=True)
class Band:
    """The entries of the latents `low:high`, by latent, then image, then token.

    The entries of latent `low + i` are `offsets[i]:offsets[i + 1]` of the other arrays.
    """

    low: int
    high: int
    offsets: NDArray[np.int64]
    image: NDArray[np.uint32]
    token: NDArray[Any]
    value: Array

    def parts(self) -> Iterator[Band]:
        """Yield the latents in smaller bands, whose tables are made one after the other."""
        counts = np.diff(self.offsets)
        for low, high in _band_limits(counts, _PART_ENTRIES, _PART_LATENTS):
            entries = slice(int(self.offsets[low]), int(self.offsets[high]))
            yield Band(
                self.low + low,
                self.low + high,
                self.offsets[low : high + 1] - self.offsets[low],
                self.image[entries],
                self.token[entries],
                self.value[entries],
            )


def count_entries(blocks: Blocks, d_sae: int) -> NDArray[np.int64]:
    """Return at how many tokens each latent fires [s]."""
    counts = np.zeros(d_sae, np.int64)
    for block in blocks(False):
        counts += np.bincount(block.index_bpk[_in_use(block)], minlength=d_sae)
    return counts


def bands(
    blocks: Blocks, counts: NDArray[np.int64], token_dtype: np.dtype[Any], budget: int
) -> Iterator[Band]:
    """Yield all latents in bands of at most `budget` entries (or of one latent), ascending."""
    for low, high in _band_limits(counts, budget, len(counts)):
        yield _gather(blocks, counts, low, high, token_dtype)


def _band_limits(counts: NDArray[np.int64], budget: int, latents: int) -> Iterator[tuple[int, int]]:
    ends = np.cumsum(counts)
    low = 0
    while low < len(counts):
        before = int(ends[low - 1]) if low else 0
        within = int(np.searchsorted(ends, before + budget, side="right"))
        high = min(max(low + 1, within), low + latents, len(counts))
        yield low, high
        low = high


def _in_use(block: Block) -> NDArray[np.bool_]:
    slots = np.arange(block.index_bpk.shape[2])
    return np.asarray(slots < block.count_bp[..., None])


def _gather(
    blocks: Blocks, counts: NDArray[np.int64], low: int, high: int, token_dtype: np.dtype[Any]
) -> Band:
    # Loaded here: readers of a store never sort.
    from scipy.sparse import csr_array

    offsets = np.concatenate([[0], np.cumsum(counts[low:high])])
    total = int(offsets[-1])
    image = np.empty(total, np.uint32)
    token = np.empty(total, token_dtype)
    value = np.empty(total, np.float16)
    cursor = offsets[:-1].copy()
    for block in blocks(True):
        in_use = _in_use(block)
        latent = block.index_bpk[in_use].astype(np.int32) - low
        # The values only move, so their bits may pass as the integers that scipy knows.
        bits = block.value_bpk[in_use].view(np.int16)
        count = block.count_bp.ravel()
        if high - low < len(counts):
            here = (latent >= 0) & (latent < high - low)
            place = np.repeat(np.arange(count.size), count)[here]
            latent, bits, count = latent[here], bits[here], np.bincount(place, minlength=count.size)
        ends = np.concatenate([[0], np.cumsum(count)]).astype(np.int32)
        # From rows of tokens to columns of latents: scipy's counting sort, stable.
        sorted_by_latent = csr_array((bits, latent, ends), (count.size, high - low)).tocsc()
        first, place = sorted_by_latent.indptr[:-1], sorted_by_latent.indices
        of_latent = np.diff(sorted_by_latent.indptr)
        target = np.repeat(cursor - first, of_latent)
        target += np.arange(len(target))
        cursor += of_latent
        at_image = place // block.count_bp.shape[1]
        image[target] = at_image + block.start
        token[target] = place - at_image * block.count_bp.shape[1]
        value[target] = sorted_by_latent.data.view(np.float16)
    return Band(low, high, offsets, image, token, value)


@dataclass(frozen=True)
class TopImages:
    """The images at which each latent fires most [s, rank], strongest first, ties by image.

    `token` is the first token of the image at which the value is reached; `used` [s] tells how
    many ranks are in use, `images` [s] at how many images the latent fires at all. The entries of
    the band that lie in such an image are `count` from `entry` on.
    """

    image: NDArray[np.uint32]
    token: NDArray[Any]
    value: Array
    used: NDArray[np.uint16]
    images: NDArray[np.uint32]
    entry: NDArray[np.int64]
    count: NDArray[np.int64]


def top_images(band: Band, ranks: int) -> TopImages:
    """Return the `ranks` strongest images of each latent of the band."""
    width = band.high - band.low
    latent = np.repeat(np.arange(width), np.diff(band.offsets))
    image, key = band.image, _ordered_bits(band.value)
    # A run is one latent in one image; its first strongest token stands for it.
    begins = np.ones(len(image), bool)
    begins[1:] = (image[1:] != image[:-1]) | (latent[1:] != latent[:-1])
    starts = np.flatnonzero(begins)
    run = np.cumsum(begins) - 1
    strongest = np.maximum.reduceat(key, starts)
    at = np.flatnonzero(key == strongest[run])
    at = at[np.diff(run[at], prepend=-1) > 0]
    of_latent = np.bincount(latent[starts], minlength=width)
    # Sort runs by latent, then falling strength; stable, so ties stay in image order.
    order = np.argsort(
        (latent[starts] << 16) | (0xFFFF - strongest.astype(np.int64)), kind="stable"
    )
    rank = np.arange(len(starts)) - np.repeat(np.cumsum(of_latent) - of_latent, of_latent)
    chosen, rank = order[rank < ranks], rank[rank < ranks]
    rows = latent[starts[chosen]]

    def table(column: Array) -> Array:
        out = np.zeros((width, ranks), column.dtype)
        out[rows, rank] = column[chosen]
        return out

    return TopImages(
        image=table(image[at]),
        token=table(band.token[at]),
        value=table(band.value[at]),
        used=np.minimum(of_latent, ranks).astype(np.uint16),
        images=of_latent.astype(np.uint32),
        entry=table(starts),
        count=table(np.diff(starts, append=len(image))),
    )


def top_maps(band: Band, top: TopImages, n_tokens: int) -> Array:
    """Return the activations of each latent on its top images [s, rank, token], 0 where silent."""
    count = top.count.ravel()
    place = np.repeat(np.arange(count.size), count)
    entry = np.arange(len(place)) + np.repeat(top.entry.ravel() - np.cumsum(count) + count, count)
    maps = np.zeros((count.size, n_tokens), np.float16)
    maps[place, band.token[entry]] = band.value[entry]
    return maps.reshape(*top.count.shape, n_tokens)


def histograms(band: Band, bins: int) -> NDArray[np.uint32]:
    """Return how many activations of each latent of the band lie in each bin [s, bin].

    The bins of a latent divide 0 to its largest activation m evenly: bin i has
    i * m / bins <= value < (i + 1) * m / bins, the last one m as well, the first one also values
    below 0.
    """
    width, value = band.high - band.low, band.value.astype(np.float64)
    row = np.repeat(np.arange(width), np.diff(band.offsets))
    largest_s = np.zeros(width)
    np.maximum.at(largest_s, row, value)
    # float64 divides float16 values without a wrong bin: only a true edge gives a whole number.
    share = np.divide(value, largest_s[row], out=np.zeros_like(value), where=value > 0)
    column = np.minimum((share * bins).astype(np.int64), bins - 1)
    cells = np.bincount(row * bins + column, minlength=width * bins)
    return cells.reshape(width, bins).astype(np.uint32)


def _ordered_bits(values: Array) -> NDArray[np.uint16]:
    """Return unsigned integers in the order of the float16 `values`."""
    bits = values.view(np.uint16)
    return np.where(bits & 0x8000, ~bits, bits | 0x8000).astype(np.uint16)
