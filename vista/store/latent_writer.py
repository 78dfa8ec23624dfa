"""Writing sparse latents: batches in, whole shards out, then the inverse of each layer.

Shape letters: b image, t token (of any kind), k slot, d width of the language model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vista.errors import UserError
from vista.store import latent_layout as layout
from vista.store.arrays import Array, ArrayReader, ArraySpec, ArrayWriter
from vista.store.by_latent import write_inverse
from vista.store.files import FileSum
from vista.store.inverse import BUDGET, Block
from vista.store.slots import SlotReader, SlotSpec, SlotWriter, block_slots
from vista.store.tree import DoneLog, StoreWriter, check_images

# float16 ends at 65504: beyond this an activation would be infinite, or nearly so.
LIMIT = 6e4
# Slots read at once while the inverse is built: with 2**23 the temporaries make it 30 % slower.
_BLOCK_SLOTS = 1 << 21


class LatentWriter:
    """Writes the sparse latents of `image_ids`, layer by layer, in any batches.

    `layers` gives the dictionary size of each layer, `kinds` the (largest) number of tokens of each
    token kind (one must be "image", with `grid` = rows x columns tokens), `k` the number of slots,
    of all layers or of each. With `d_model` the store sums the residual stream as well, which a
    stage that may be resumed needs for its mean. A shard file (`shard` images) is published when
    its last image has been written; until then its compressed chunks (`chunk` images) are held in
    memory. More than `block` slots are split into blocks of that many (see slots.py); without it,
    more than 512 into blocks of 256.

    Opening a path that an interrupted writer left goes on there: write the images of `pending()`
    again. Raises UserError where the path holds another store.
    """

    def __init__(
        self,
        path: Path,
        image_ids: Sequence[str],
        grid: tuple[int, int],
        layers: Mapping[int, int],
        kinds: Mapping[str, int],
        k: int | Mapping[int, int],
        d_model: int | None = None,
        shard: int = 256,
        chunk: int = 4,
        block: int | None = None,
    ) -> None:
        ids = check_images(image_ids)
        grid = (int(grid[0]), int(grid[1]))
        if kinds.get(layout.IMAGE_TOKENS) != grid[0] * grid[1] or layout.BY_LATENT in kinds:
            raise ValueError(f"kinds {dict(kinds)} do not fit the grid {grid}")
        self._layers, self._kinds, self._n_images = dict(layers), dict(kinds), len(ids)
        self._k = {layer: k if isinstance(k, int) else k[layer] for layer in layers}
        self._block = {
            layer: min(slots, block or block_slots(slots)) for layer, slots in self._k.items()
        }
        self._d_model, self._shard, self._chunk = d_model, shard, chunk
        valid = {
            kind: {"valid": layout.valid_spec((len(ids), n), chunk, shard)}
            for kind, n in kinds.items()
        }
        columns = {
            (layer, kind): layout.column_specs(
                (len(ids), n, self._k[layer]),
                d_sae,
                d_model,
                kind,
                chunk,
                shard,
                self._block[layer],
            )
            for layer, d_sae in layers.items()
            for kind, n in kinds.items()
        }
        self._store = StoreWriter(
            Path(path),
            layout.root_attributes(grid, self._layers, self._kinds, self._k),
            {
                f"{group}/{name}": spec
                for group, specs in [
                    *((layout.kind_group(kind), specs) for kind, specs in valid.items()),
                    *((layout.layer_group(*key), specs) for key, specs in columns.items()),
                ]
                for name, spec in specs.items()
            },
            layout.coordinates(ids, grid, layers, kinds),
        )
        root, identity = self._store.path, self._store.identity
        self._valid = {
            kind: _Unit(root / layout.kind_group(kind), specs, identity)
            for kind, specs in valid.items()
        }
        self._units = {
            key: _Unit(root / layout.layer_group(*key), specs, identity)
            for key, specs in columns.items()
        }

    def done_shards(self) -> set[int]:
        """Return the shards whose images are written for every layer and token kind."""
        shards = set(range(-(-self._n_images // self._shard)))
        for unit in [*self._valid.values(), *self._units.values()]:
            shards = unit.log.done(shards)
        return shards

    def pending(self) -> list[range]:
        """Return the images that are still to be written, one range for each unfinished shard."""
        starts = range(0, self._n_images, self._shard)
        done = self.done_shards()
        return [
            range(start, min(start + self._shard, self._n_images))
            for number, start in enumerate(starts)
            if number not in done
        ]

    def set_valid(self, kind: str, start_image: int, valid: Array) -> None:
        """Say which tokens of the images from `start_image` on are there, bool [b, t]."""
        self._valid[kind].put(start_image, {"valid": np.asarray(valid, bool)})

    def write(
        self,
        kind: str,
        start_image: int,
        layer: int,
        index: Array,
        value: Array,
        nnz: Array,
        error: Array,
        norm2: Array,
        total: Array | None = None,
    ) -> None:
        """Write the images from `start_image` on.

        `index` and `value` [b, t, slots] hold a token's latents in their first `nnz` [b, t] slots,
        of which there may be fewer or more than the store has;
        `error` and `norm2` [b, t] are the mean squares over channels. `total` [b, d] is the sum of
        the residual stream over the image's valid tokens; it goes with `d_model`.

        Raises UserError where a token has more latents than the store has slots, or where a value
        is not finite or beyond 6e4; ValueError where arrays do not fit each other or the store.
        """
        k, d_sae = self._k[layer], self._layers[layer]
        place = f"{self._store.path}: layer {layer}, {kind} tokens, images from {start_image} on"
        if nnz.shape != index.shape[:2] or nnz.shape != error.shape or index.shape != value.shape:
            raise ValueError(f"{place}: shapes {index.shape}, {value.shape}, {nnz.shape} differ")
        largest = int(nnz.max(initial=0))
        if largest > k:
            raise UserError(
                f"{place}: a token has {largest} active latents, the store has {k} slots. "
                f"Raise k of the latents to at least {largest}."
            )
        if largest > index.shape[2] or int(nnz.min(initial=0)) < 0:
            raise ValueError(f"{place}: {largest} latents in {index.shape[2]} slots")
        in_use = np.arange(index.shape[2]) < nnz[..., None]
        index, value = np.where(in_use, index, 0), np.where(in_use, value, 0)
        if int(index.min(initial=0)) < 0 or int(index.max(initial=0)) >= d_sae:
            raise ValueError(f"{place}: an index is outside the dictionary of {d_sae}")
        for name, column in (("activation", value), ("error", error), ("norm", norm2)):
            limit = LIMIT if name == "activation" else float(np.finfo(np.float32).max)
            if not (np.abs(column) <= limit).all():
                raise UserError(
                    f"{place}: an {name} is not finite or beyond {limit:g}. Check the SAE, the "
                    "projector and their precision."
                )
        if (total is None) != (self._d_model is None):
            raise ValueError(f"{place}: totals go with d_model, both or neither")
        unit = self._units[layer, kind]
        # Of slots in blocks those in use are enough.
        slots = largest if self._block[layer] < k else k
        columns = {
            "index": _slots(index, slots, layout.unsigned_for(d_sae - 1)),
            "value": _slots(value, slots, np.dtype("float16")),
            "nnz": nnz,
            "error": error,
            "norm2": norm2,
        }
        if total is not None:
            columns[layout.TOTAL2] = np.square(total, dtype=np.float64).mean(axis=1)
        unit.put(start_image, columns, total)

    def finish(self, layer: int, kind: str, mean: Array | None = None) -> None:
        """Write the mean of the residual stream over the valid tokens [d].

        Without `mean` it is made from the totals of all shards, so it holds for a resumed writer
        too. Raises ValueError where there are neither, or where images are missing.
        """
        unit, group = self._units[layer, kind], layout.layer_group(layer, kind)
        if mean is None:
            if self._d_model is None:
                raise ValueError(f"{group}: the mean needs d_model and totals")
            if self.pending():
                raise ValueError(f"{group}: finish was called before all images were written")
            total_d = unit.reader("total").all().sum(axis=0)
            mean = total_d / max(self._valid_tokens(kind), 1)
        self._store.add(f"{group}/mean", layout.mean_spec(len(mean)), mean)

    def close(self, budget: int = BUDGET) -> None:
        """Build the inverse of every layer and seal the store.

        At most `budget` entries of an inverse are held at once (8 bytes each); a layer with more
        is read once more for each further `budget` entries.

        Raises ValueError while images or the mean of a layer are missing.
        """
        missing = self.pending()
        if missing:
            raise ValueError(f"{self._store.path}: images {missing[0]} are not written")
        for layer, kind in self._units:
            if f"{layout.layer_group(layer, kind)}/mean" not in self._store.nodes:
                raise ValueError(f"layer {layer}, {kind}: finish was not called")
        for layer, d_sae in self._layers.items():
            write_inverse(
                self._store,
                layout.layer_group(layer, layout.BY_LATENT),
                self._blocks(layer),
                d_sae,
                self._kinds[layout.IMAGE_TOKENS],
                self._valid_tokens(layout.IMAGE_TOKENS),
                budget,
            )
        self._store.seal()

    def _valid_tokens(self, kind: str) -> int:
        """Return how many tokens of all images are valid."""
        return int(self._valid[kind].reader("valid").all().sum())

    def _blocks(self, layer: int) -> Callable[[bool], Iterator[Block]]:
        unit, valid = (
            self._units[layer, layout.IMAGE_TOKENS],
            self._valid[layout.IMAGE_TOKENS].reader("valid"),
        )
        block = self._block[layer]

        def read(with_values: bool) -> Iterator[Block]:
            start = 0
            while start < self._n_images:
                stop = min(start + self._images_at_once(block), self._n_images)
                nnz = unit.reader("nnz").rows(start, stop)
                # A whole block of slots is decoded even if few of them are in use.
                nnz = nnz[: self._images_at_once(max(block, int(nnz.max())))]
                stop = start + len(nnz)
                index = unit.slots("index", start, nnz)
                value = unit.slots("value", start, nnz) if with_values else index
                yield Block(start, index, value, np.where(valid.rows(start, stop), nnz, 0))
                start = stop

        return read

    def _images_at_once(self, slots: int) -> int:
        """Return of how many images, with so many slots a token, the inverse takes a block."""
        # Whole chunks, or their edges would be decoded twice.
        per_chunk = self._kinds[layout.IMAGE_TOKENS] * slots * self._chunk
        return min(max(1, _BLOCK_SLOTS // per_chunk) * self._chunk, self._shard)


class _Unit:
    """The arrays of one group that are written together: a shard is done when all have it."""

    def __init__(self, base: Path, specs: Mapping[str, ArraySpec], identity: str) -> None:
        self._base, self._specs = base, dict(specs)
        self._writers = {
            name: SlotWriter(base / name, spec)
            if isinstance(spec, SlotSpec)
            else ArrayWriter(base / name, spec)
            for name, spec in specs.items()
        }
        first = next(iter(specs))
        self._images = specs[first]
        self.log = DoneLog(base / first / "done", base, identity)
        # Sum of the totals, and of how many images, of each unfinished shard.
        self._totals: dict[int, tuple[NDArray[np.float64], int]] = {}

    def reader(self, name: str) -> ArrayReader:
        return ArrayReader(self._base / name, self._specs[name])

    def slots(self, name: str, start: int, nnz_bt: Array) -> Array:
        """Return the slots in use of the images from `start` on."""
        return SlotReader(self._base / name, self._specs[name]).rows(start, nnz_bt)

    def put(self, start: int, columns: Mapping[str, Array], total_bd: Array | None = None) -> None:
        files: dict[int, dict[str, FileSum]] = {}
        for name, rows in columns.items():
            self._put(name, start, rows, files, columns.get("nnz"))
        if total_bd is not None:
            self._add_totals(start, total_bd, files)
        for shard, sums in files.items():
            self.log.record(shard, len(self._images.shard_rows(shard)), sums)

    def _put(
        self,
        name: str,
        start: int,
        rows: Array,
        files: dict[int, dict[str, FileSum]],
        nnz_bt: Array | None = None,
    ) -> None:
        writer = self._writers[name]
        if isinstance(writer, SlotWriter):
            assert nnz_bt is not None
            published = writer.put(start, rows, nnz_bt)
        else:
            published = {
                shard: {writer.spec.shard_file(shard): file_sum}
                for shard, file_sum in writer.put(start, rows).items()
            }
        for shard, sums in published.items():
            of_shard = files.setdefault(shard, {})
            of_shard.update({f"{name}/{file}": file_sum for file, file_sum in sums.items()})

    def _add_totals(
        self, start: int, total_bd: Array, files: dict[int, dict[str, FileSum]]
    ) -> None:
        stop = start + len(total_bd)
        for shard in self._images.shards_of(start, stop):
            images = self._images.shard_rows(shard)
            rows = total_bd[max(images.start - start, 0) : min(images.stop, stop) - start]
            sum_d, count = self._totals.pop(shard, (0.0, 0))
            self._totals[shard] = sum_d + rows.sum(axis=0, dtype=np.float64), count + len(rows)
            if shard in files:
                sum_d, count = self._totals.pop(shard)
                assert count == len(images), f"{self._base}: {count} of {len(images)} totals"
                self._put("total", shard, sum_d[None], files)


def _slots(column: Array, k: int, dtype: np.dtype[Any]) -> Array:
    """Return the column [b, t, slots] cut or padded with 0 to k slots, in the store's dtype."""
    out = np.zeros((*column.shape[:2], k), dtype)
    slots = min(k, column.shape[2])
    out[..., :slots] = column[..., :slots]
    return out
