"""Arrays [image, token, slot] whose slots are split into blocks, and unused blocks not written.

Most tokens use a few slots of very many. The slots in use come first, so that a token with n
latents lies in the first ceil(n / block) blocks. The blocks of 256 images are a shard file each,
`c/<shard>/0/<block>`, of which those are written that a token of these images reaches; what is not
there is 0, the array's fill value, to any Zarr reader. How many slots each token uses (`nnz`) tells
a file that was never written from a lost one.

Shape letters: b image, t token, k slot.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vista.store.arrays import Array, ArrayReader, ArraySpec, ArrayWriter
from vista.store.files import FileSum, damaged, read_json
from vista.store.tree import META, StoreTree

# Up to this many slots lie in one block, as in stores that have no blocks.
_WHOLE = 512
_BLOCK = 256


def block_slots(k: int) -> int:
    """Return the slots of a block where a token has `k` slots."""
    return k if k <= _WHOLE else _BLOCK


@dataclass(frozen=True)
class _Block(ArraySpec):
    """One block of the slots as an array of its own [image, token, slot of the block]."""

    number: int = 0

    @property
    def fill(self) -> Any:
        return self.storage_dtype.type(0)

    def shard_file(self, shard: int) -> str:
        return f"c/{shard}/0/{self.number}"


@dataclass(frozen=True)
class SlotSpec(ArraySpec):
    """An array [image, token, slot] of which a chunk and a shard hold `block` slots."""

    block: int = 1

    def part(self, number: int) -> ArraySpec:
        """Return block `number` as an array of its own: its files are those of this array."""
        shape = (*self.shape[:-1], self.block)
        return _Block(shape, self.dtype, self.dims, self.chunk, self.shard, number=number)

    def blocks(self, slots: int) -> int:
        """Return how many blocks hold the first `slots` slots, at least one."""
        return max(1, -(-slots // self.block))

    def metadata(self) -> dict[str, Any]:
        """Return the content of the array's zarr.json."""
        content = super().metadata()
        sharding = content["codecs"][0]["configuration"]
        for grid in (sharding, content["chunk_grid"]["configuration"]):
            grid["chunk_shape"][-1] = self.block
        return content | {"fill_value": 0}

    @classmethod
    def parse(cls, metadata: Any) -> SlotSpec | None:
        """Return the spec whose `metadata()` this is, or None for any other layout."""
        try:
            sharding = metadata["codecs"][0]["configuration"]
            spec = cls(
                shape=tuple(metadata["shape"]),
                dtype=np.dtype(metadata["data_type"]),
                dims=tuple(metadata["dimension_names"]),
                chunk=sharding["chunk_shape"][0],
                shard=metadata["chunk_grid"]["configuration"]["chunk_shape"][0],
                attributes=metadata["attributes"],
                block=sharding["chunk_shape"][2],
            )
            return spec if spec.metadata() == metadata else None
        except (KeyError, IndexError, TypeError, ValueError):
            return None


class SlotWriter:
    """Collects rows in any order and publishes the blocks in use of each shard when it is complete.

    The files do not depend on how the rows were cut into batches.
    """

    def __init__(self, folder: Path, spec: SlotSpec) -> None:
        self._folder, self._spec = folder, spec
        self._blocks: dict[int, ArrayWriter] = {}
        # First and last image, and blocks in use, of what was put into each unfinished shard.
        self._put: dict[int, list[tuple[int, int, int]]] = {}

    def put(self, start: int, rows_btk: Array, nnz_bt: Array) -> dict[int, dict[str, FileSum]]:
        """Take the rows from `start` on, of as many slots as are in use, or more.

        Returns the files of the shards that were published by it. Raises ValueError for rows
        outside the array or given twice within an unfinished shard.
        """
        published = {}
        for shard in self._spec.shards_of(start, start + len(rows_btk)):
            images = self._spec.shard_rows(shard)
            first, stop = max(images.start - start, 0), max(images.stop - start, 0)
            rows, nnz = rows_btk[first:stop], nnz_bt[first:stop]
            if files := self._put_in(shard, start + first, rows, int(nnz.max(initial=0))):
                published[shard] = files
        return published

    def _put_in(self, shard: int, start: int, rows_btk: Array, slots: int) -> dict[str, FileSum]:
        in_use = self._spec.blocks(slots)
        put = self._put.setdefault(shard, [])
        files: dict[str, FileSum] = {}
        # The first block, which is always there, comes last: it says whether the shard is complete.
        for number in reversed(range(in_use)):
            self._put_block(shard, number, start, self._cut(rows_btk, number), files)
        put.append((start, start + len(rows_btk), in_use))
        if files:
            del self._put[shard]
            most = max(blocks for _, _, blocks in put)
            for first, stop, blocks in put:
                for number in range(blocks, most):
                    zeros = np.zeros((stop - first, *self._spec.part(number).shape[1:]), bool)
                    self._put_block(shard, number, first, zeros, files)
            self._remove_others(shard, files)
        return files

    def _put_block(
        self, shard: int, number: int, start: int, rows_btk: Array, files: dict[str, FileSum]
    ) -> None:
        spec = self._spec.part(number)
        if number not in self._blocks:
            self._blocks[number] = ArrayWriter(self._folder, spec)
        for file_sum in self._blocks[number].put(start, rows_btk).values():
            files[spec.shard_file(shard)] = file_sum

    def _cut(self, rows_btk: Array, number: int) -> Array:
        """Return a block of the slots, padded with 0 where the array ends within it."""
        size = self._spec.block
        cut = rows_btk[..., number * size : (number + 1) * size]
        missing = size - cut.shape[-1]
        return np.pad(cut, ((0, 0), (0, 0), (0, missing))) if missing else cut

    def _remove_others(self, shard: int, files: dict[str, FileSum]) -> None:
        """Remove blocks that an interrupted writer left and that are not in use now."""
        for path in (self._folder / self._spec.part(0).shard_file(shard)).parent.iterdir():
            if path.relative_to(self._folder).as_posix() not in files:
                path.unlink()


class SlotReader:
    """Reads an array of slots, in blocks or not, and checks every byte that it reads.

    Raises UserError naming the shard file where one that is in use is missing or damaged.
    """

    def __init__(self, folder: Path, spec: ArraySpec) -> None:
        self._folder, self._spec = folder, spec
        self.in_blocks = isinstance(spec, SlotSpec)

    def rows(self, start: int, nnz_bt: Array, *, all_slots: bool = False) -> Array:
        """Return the rows from `start` on whose tokens use `nnz_bt` slots, as an array [b, t, k].

        k is the largest number of slots in use (at least 1), or with `all_slots` that of the array.
        """
        spec, k = self._spec, self._spec.shape[2]
        width = k if all_slots else min(k, max(1, int(nnz_bt.max(initial=0))))
        if not isinstance(spec, SlotSpec):
            return ArrayReader(self._folder, spec).rows(start, start + len(nnz_bt))[..., :width]
        # Pages of a large array of zeros that nothing is written to take no memory.
        out_btk = np.zeros((*nnz_bt.shape, width), spec.storage_dtype)
        slots_b = nnz_bt.max(axis=1, initial=0)
        for number in range(spec.blocks(width)):
            reader = ArrayReader(self._folder, spec.part(number))
            first = number * spec.block
            for low, high in _runs(start, slots_b > first, spec.chunk):
                rows_btk = reader.rows(low, high)[..., : width - first]
                out_btk[low - start : high - start, :, first : first + spec.block] = rows_btk
        return out_btk


def _runs(start: int, wanted_b: NDArray[np.bool_], chunk: int) -> Iterator[tuple[int, int]]:
    """Yield the first and the last row of each run of chunks that hold wanted rows."""
    stop = start + len(wanted_b)
    chunks = np.unique((start + np.flatnonzero(wanted_b)) // chunk)
    for run in np.split(chunks, np.flatnonzero(np.diff(chunks) > 1) + 1):
        if len(run):
            yield max(start, int(run[0]) * chunk), min(stop, (int(run[-1]) + 1) * chunk)


def open_slots(tree: StoreTree, name: str) -> SlotReader:
    """Return a reader of an array of slots of a store, in blocks or not.

    Raises UserError where it is missing or damaged.
    """
    spec = SlotSpec.parse(tree.nodes.get(name))
    if spec is None:
        return SlotReader(tree.path / name, tree.array(name).spec)
    if read_json(meta := tree.path / name / META) != tree.nodes[name]:
        raise damaged(meta, "it differs from the store's consolidated metadata")
    return SlotReader(tree.path / name, spec)
