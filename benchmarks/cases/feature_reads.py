"""Patch features of random images, in training order: our store, a memory map, zarr-python."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.case import Case, Limit, Size, seconds
from benchmarks.machine import bandwidth
from benchmarks.profiles import python_shares
from vista.store.features import FeatureReader, FeatureWriter

Indices = NDArray[np.int64]
Read = Callable[[Indices], NDArray[np.float16]]

# Images, patches on a side, channels, images a shard, images a batch; full: of 0.8 GB.
SIZES = {"full": (2048, 16, 768, 256, 32), "tiny": (24, 2, 8, 10, 4)}


def cases(size: Size, folder: Path) -> Iterator[Case]:
    """Yield both comparisons; the files stay in the page cache."""
    import zarr

    from vista.projector.train import batch_indices

    n, side, channels, shard, batch = SIZES[size]
    shape = (n, side**2, channels)
    _write(folder, shape, side, shard)
    order = [batch_indices(n, batch, step, seed=0) for step in range(n // batch)]
    ours = FeatureReader(folder / "features.zarr").read
    mapped = np.memmap(folder / "features.f16", np.float16, "r", shape=shape)
    array: Any = zarr.open_group(folder / "features.zarr", mode="r")["features"]
    readers: tuple[tuple[str, Read, float, int], ...] = (
        ("np.memmap", lambda images: np.asarray(mapped[images]), 0.7, 1),
        # Not `array.oindex[images]`, which takes fifty times as long on a sharded array.
        ("zarr-python", lambda images: np.stack([array[int(i)] for i in images]), 20, 8),
    )
    for name, usual, bar, part in readers:
        require_same(ours, usual, order[:1])
        # A share of the epoch for what takes long; both sides read the same.
        batches = order[: max(1, len(order) // part)]
        sides = [partial(_epoch, read, batches) for read in (ours, usual)]
        n_bytes = batches[0].size * len(batches) * mapped[0].nbytes
        yield Case(
            f"feature reads against {name}",
            f"{len(batches)} batches of {batch} random images, {side**2} x {channels} fp16",
            *(partial(seconds, each) for each in sides),
            bar=bar,
            # A copy reads and writes; a batch that is used at once stays in the cache.
            limit=Limit(n_bytes / bandwidth() / 2, "each byte read once from memory"),
            profile=lambda sides=sides: (python_shares(sides[1]), python_shares(sides[0])),
        )


def require_same(ours: Read, usual: Read, batches: Sequence[Indices]) -> None:
    """Raise ValueError where the two give other values, or another order."""
    for images in batches:
        if not np.array_equal(ours(images), usual(images)):
            raise ValueError("the features of the two sides differ")


def _write(folder: Path, shape: tuple[int, int, int], side: int, shard: int) -> None:
    """Write the same features as our store and as one plain file."""
    ids = [f"image_{i}" for i in range(shape[0])]
    writer = FeatureWriter(folder / "features.zarr", ids, (side, side), shape[2], shard=shard)
    generator = np.random.default_rng(0)
    with (folder / "features.f16").open("wb") as plain:
        for number in range(writer.shards):
            rows = (len(writer.shard_images(number)), *shape[1:])
            # Finite bit patterns: normal numbers would take ten times as long to draw.
            features = generator.integers(0, 0x7000, rows, np.uint16).view(np.float16)
            writer.write_shard(number, features)
            features.tofile(plain)
    writer.close()


def _epoch(read: Read, batches: Sequence[Indices]) -> None:
    for images in batches:
        read(images)
