"""Dense features: patch tokens of an encoder for every image, as one sharded Zarr array.

The group holds `features` [image, token, channel] (float16, one image an inner chunk, CRC-32C),
and the coordinates `image` (ids), `row` and `column` (of a token in the patch grid, row-major).
Any Zarr v3 reader and `xarray.open_zarr` open it; the reader here maps the shard files into memory.

Shape letters: b image, p patch token, d channel of the encoder.
"""

from __future__ import annotations

import itertools
import mmap
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from vista.errors import UserError
from vista.store.arrays import MISSING, Array, ArrayReader, ArraySpec, ArrayWriter, parse_index
from vista.store.files import crc32c, damaged, read_json
from vista.store.tree import (
    META,
    DoneLog,
    StoreWriter,
    check_images,
    grid_coordinates,
    image_spec,
    open_tree,
)

FORMAT = "vista features 1"
# float16 ends at 65504: beyond this a feature would be infinite, or nearly so.
LIMIT = 6e4
# A mapped file holds a descriptor, and 1,024 is the usual limit of a process.
MAPPED_SHARDS = 256
_CRC_BYTES = 4


class FeatureWriter:
    """Writes the features of `image_ids`, in that order, whole shards at a time.

    `grid` is (rows, columns) of patch tokens, `d_vision` the number of channels, `dtype` float16
    or float32, `shard` the number of images in a file. Opening a path that an interrupted writer
    left goes on where that one stopped; raises UserError where the path holds another store.
    """

    def __init__(
        self,
        path: Path,
        image_ids: Sequence[str],
        grid: tuple[int, int],
        d_vision: int,
        dtype: str = "float16",
        shard: int = 256,
    ) -> None:
        if dtype not in ("float16", "float32"):
            raise ValueError(f"features are float16 or float32, not {dtype}")
        if min(*grid, d_vision, shard) < 1:
            raise ValueError(f"grid {grid}, d_vision {d_vision} and shard {shard} must be positive")
        ids = check_images(image_ids)
        grid = (int(grid[0]), int(grid[1]))
        self._spec = ArraySpec(
            shape=(len(ids), grid[0] * grid[1], d_vision),
            dtype=np.dtype(dtype),
            dims=("image", "token", "channel"),
            chunk=1,
            shard=shard,
            compress=False,
            attributes={
                "units": "activation",
                "long_name": "output of the vision encoder at a patch token",
                "coordinates": "row column",
            },
        )
        constants = {
            "image": (image_spec(len(ids)), np.array(ids, dtype=object)),
            **grid_coordinates(grid),
        }
        attributes = {"format": FORMAT, "grid": list(grid)}
        self._store = StoreWriter(Path(path), attributes, {"features": self._spec}, constants)
        self._array = self._store.path / "features"
        self._log = DoneLog(self._array / "done", self._array, self._store.identity)

    @property
    def shards(self) -> int:
        """The number of shards."""
        return self._spec.shards

    def shard_images(self, shard: int) -> range:
        """Return the images (positions in `image_ids`) that belong to the shard."""
        return self._spec.shard_rows(shard)

    def done_shards(self, among: Iterable[int] | None = None) -> set[int]:
        """Return the shards that are finished, of all or `among` some; those of an earlier writer
        are read and checked."""
        return self._log.done(range(self._spec.shards) if among is None else among)

    def write_shard(self, shard: int, features_bpd: Array) -> None:
        """Write all the images of one shard, [images, token, channel] of any float type.

        Raises UserError where a value is not finite or, for float16, larger than 6e4.
        """
        images = self.shard_images(shard)
        if features_bpd.shape != (len(images), *self._spec.shape[1:]):
            raise ValueError(f"shard {shard}: {features_bpd.shape} for {len(images)} images")
        # Minimum and maximum carry a NaN on, and need no array of their own.
        lowest, highest = float(features_bpd.min()), float(features_bpd.max())
        max_abs = max(abs(lowest), abs(highest))
        limit = LIMIT if self._spec.dtype == np.float16 else float(np.finfo(np.float32).max)
        if not (lowest >= -limit and highest <= limit):
            raise UserError(
                f"{self._array}: images {images.start} to {images.stop - 1} have features from "
                f"{lowest:g} to {highest:g}; {self._spec.dtype} holds finite ones up to {limit:g}. "
                "Check the encoder and its precision."
            )
        written = ArrayWriter(self._array, self._spec).put(images.start, features_bpd)
        files = {self._spec.shard_file(shard): written[shard]}
        self._log.record(shard, len(images), files, max_abs=max_abs)

    def close(self) -> None:
        """Seal the store. Raises ValueError while a shard is not written."""
        missing = sorted(set(range(self._spec.shards)) - self.done_shards())
        if missing:
            raise ValueError(f"{self._array}: shards {missing[:10]} are not written")
        self._store.seal()


class FeatureReader:
    """Reads batches of images from a feature store.

    `image_ids`, `grid` (rows, columns), `shape` [image, token, channel] and `dtype` describe it.
    Each image's checksum is verified when it is first read. Raises UserError naming the file where
    the store, a shard or an image is missing or damaged. Not for several threads at once.

    A store that another program wrote (a group with an array `features` of three dimensions, and
    at best `image` ids and a `grid` attribute) is read through zarr-python, 20 to 50 times slower.
    """

    def __init__(self, path: Path) -> None:
        path = Path(path)
        if path.is_dir() and "format" not in _root_attributes(path):
            foreign = _ZarrImages(path)
            self._source: _Images = foreign
            self.shape, self.dtype = foreign.shape, foreign.dtype
            self.image_ids, self.grid = foreign.image_ids, foreign.grid
            return
        tree = open_tree(path, FORMAT)
        features = tree.array("features")
        self._source = _MappedImages(features)
        self.shape = (features.spec.shape[0], features.spec.shape[1], features.spec.shape[2])
        self.dtype = features.spec.storage_dtype
        self.image_ids = [str(image_id) for image_id in tree.array("image").all()]
        self.grid = (int(tree.attributes["grid"][0]), int(tree.attributes["grid"][1]))
        for coordinate in ("row", "column"):
            tree.array(coordinate).all()

    def read(self, indices: Iterable[int] | NDArray[np.integer[Any]], out: Any = None) -> Array:
        """Return the features of the images at `indices` [b, p, d], in that order.

        `out` may give an array to fill (a reused or pinned batch) and is then what is returned.
        Raises IndexError for an image outside the store.
        """
        images = np.fromiter(indices, np.int64)
        shape = (len(images), *self.shape[1:])
        if out is None:
            out = np.empty(shape, self.dtype)
        elif out.shape != shape:
            raise ValueError(f"out has shape {out.shape}, the batch has {shape}")
        if len(images) and not (images.min() >= 0 and images.max() < self.shape[0]):
            raise IndexError(f"images {images.min()} to {images.max()} of {self.shape[0]}")
        # One thread and one copy an image: on two threads the copies fight over the memory bus.
        for row, image in enumerate(images.tolist()):
            out[row] = self._source.image(image)
        return np.asarray(out)


class _Images(Protocol):
    def image(self, image: int) -> Array:
        """Return the features of one image [p, d]."""


class _MappedImages:
    """Images as views into memory-mapped shard files."""

    def __init__(self, array: ArrayReader) -> None:
        self._folder, self._spec = array.folder, array.spec
        self._shape, self._dtype = self._spec.shape[1:], self._spec.storage_dtype
        self._verified = bytearray(self._spec.rows)
        # By shard: its bytes, and where in them each image begins.
        self._maps: OrderedDict[int, tuple[NDArray[np.uint8], list[int]]] = OrderedDict()
        for shard in range(self._spec.shards):
            if not self._file(shard).is_file():
                raise damaged(self._file(shard), "the file is missing")

    def image(self, image: int) -> Array:
        shard, slot = divmod(image, self._spec.shard)
        data, starts = self._maps.get(shard) or self._map(shard)
        values: Array = np.ndarray(self._shape, self._dtype, data, starts[slot])
        if not self._verified[image]:
            stop = starts[slot] + values.nbytes
            stored = data[stop : stop + _CRC_BYTES].tobytes()
            if crc32c(values) != int.from_bytes(stored, "little"):
                raise damaged(self._file(shard), f"the checksum of image {image} differs")
            self._verified[image] = True
        return values

    def _file(self, shard: int) -> Path:
        return self._folder / self._spec.shard_file(shard)

    def _map(self, shard: int) -> tuple[NDArray[np.uint8], list[int]]:
        # Not a view for each image: in random order over many shards most maps serve one image.
        spec, path = self._spec, self._file(shard)
        try:
            with path.open("rb") as file:
                data = np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)
            spans = parse_index(spec, data[-spec.index_bytes :].tobytes(), len(data))
        except FileNotFoundError as error:
            raise damaged(path, "the file is missing") from error
        except (OSError, ValueError) as error:
            raise damaged(path, str(error)) from error
        images = spec.shard_rows(shard)
        starts, lengths = spans[: len(images)].T
        size = spec.storage_dtype.itemsize * spec.shape[1] * spec.shape[2]
        bad = (starts == MISSING) | (lengths != size + _CRC_BYTES)
        if bad.any():
            raise damaged(path, f"image {images[int(bad.argmax())]} is missing in it")
        while len(self._maps) >= MAPPED_SHARDS:
            self._maps.popitem(last=False)
        self._maps[shard] = data, starts.tolist()
        return self._maps[shard]


# What zarr-python raises over metadata and chunks that are no such store.
_UNREADABLE = (
    *(KeyError, IndexError, ValueError, TypeError, AttributeError),
    *(OSError, OverflowError, RuntimeError, RecursionError),
)


class _ZarrImages:
    """Images of a store with another layout, through zarr-python.

    A chunk file that is missing is an error; a chunk that is missing within a shard is one where
    the fill value is NaN, and cannot be told from data otherwise.
    """

    def __init__(self, path: Path) -> None:
        import zarr

        self._path = path
        try:
            group: Any = zarr.open_group(path, mode="r")
            array: Any = group["features"]
            rows, tokens, channels = array.shape
            side = round(tokens**0.5)
            grid_rows, grid_columns = map(int, group.attrs.get("grid", (side, side)))
            names: Any = group["image"][:] if "image" in group else range(rows)
        except _UNREADABLE as error:
            raise UserError(
                f"{path} is no feature store ({error}); expected a Zarr group with an array "
                "'features' [image, token, channel]; an array 'image' of ids and an attribute "
                "'grid' = [rows, columns] may stand beside it."
            ) from error
        self._array = array
        self.shape = (int(rows), int(tokens), int(channels))
        self.dtype = np.dtype(array.dtype)
        outer = array.shards or array.chunks
        for key in itertools.product(
            *(range(-(-n // size)) for n, size in zip(array.shape, outer, strict=True))
        ):
            file = path / "features" / array.metadata.encode_chunk_key(key)
            if not file.is_file():
                raise damaged(file, "the chunk is missing")
        self.image_ids = [str(name) for name in names]
        self.grid = (grid_rows, grid_columns)
        if self.grid[0] * self.grid[1] != self.shape[1] or len(self.image_ids) != self.shape[0]:
            raise UserError(
                f"{path}: {self.shape[1]} tokens and {len(self.image_ids)} image ids do not fit "
                f"the grid {self.grid} and {self.shape[0]} images; give the group an attribute "
                "'grid' = [rows, columns] and an array 'image' of ids."
            )

    def image(self, image: int) -> Array:
        try:
            values = np.asarray(self._array[image])
        except (ValueError, RuntimeError, OSError, KeyError) as error:
            raise damaged(self._path / "features", f"image {image}: {error}") from error
        if not np.isfinite(values).all():
            raise damaged(self._path / "features", f"image {image} is missing or not finite")
        return values


def _root_attributes(path: Path) -> Any:
    root = read_json(path / META)
    try:
        return root["attributes"].keys()
    except (KeyError, TypeError, AttributeError) as error:
        raise damaged(path / META, "it is no Zarr group") from error
