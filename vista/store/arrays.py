"""Sharded Zarr v3 arrays, split along their first axis only.

The layout is the Zarr v3 sharding codec (https://zarr-specs.readthedocs.io/en/latest/v3/codecs/
sharding-indexed/): a shard file holds its inner chunks one after the other, then an index of
(offset, length) for each, then the index's CRC-32C. The files are packed and parsed here, and not
by zarr-python, for three reasons: a shard becomes visible at once and fsynced, a chunk that is
missing is an error instead of fill values, and shards can be memory-mapped.

Every chunk ends in a CRC-32C, compressed ones too: zstd's own checksum leaves 0.4 % of the bit
flips unnoticed (harmless ones, in a frame's header), and so no damage reaches the decoder.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
from numcodecs import VLenUTF8, Zstd
from numpy.typing import NDArray

from vista.store.files import FileSum, crc32c, damaged, publish

Array = NDArray[Any]

# A chunk that is not there has this offset and length in the shard's index (Zarr specification).
MISSING = np.uint64(2**64 - 1)
_CRC_BYTES = 4


@dataclass(frozen=True)
class ArraySpec:
    """Everything about an array but its values.

    `chunk` and `shard` are rows along the first axis; `shard` is a multiple of `chunk`. A `dtype`
    of None stands for variable-length strings. `compress` is zstd level 1; without it a chunk is
    its bare values and a checksum, fit for memory mapping.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any] | None
    dims: tuple[str, ...]
    chunk: int
    shard: int
    compress: bool = True
    attributes: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.chunk < 1 or self.shard < 1 or self.shard % self.chunk:
            raise ValueError(f"shard {self.shard} is no multiple of chunk {self.chunk}")
        if len(self.dims) != len(self.shape):
            raise ValueError(f"dimension names {self.dims} do not fit the shape {self.shape}")

    @property
    def rows(self) -> int:
        return self.shape[0]

    @property
    def shards(self) -> int:
        return -(-self.rows // self.shard)

    @property
    def chunks_per_shard(self) -> int:
        return self.shard // self.chunk

    @property
    def index_bytes(self) -> int:
        return 16 * self.chunks_per_shard + _CRC_BYTES

    @property
    def storage_dtype(self) -> np.dtype[Any]:
        """The dtype of rows in memory: little endian, or object for strings."""
        return np.dtype(object) if self.dtype is None else self.dtype.newbyteorder("<")

    @property
    def fill(self) -> Any:
        """The value of what was never written: one that no reader takes for data."""
        if self.dtype is None:
            return ""
        if self.dtype.kind == "f":
            return float("nan")
        return False if self.dtype.kind == "b" else int(np.iinfo(self.dtype).max)

    def shard_file(self, shard: int) -> str:
        """Return the shard's path below the array's folder (Zarr's default chunk keys)."""
        return "/".join(["c", str(shard)] + ["0"] * (len(self.shape) - 1))

    def shards_of(self, start: int, stop: int) -> range:
        return range(start // self.shard, -(-stop // self.shard))

    def shard_rows(self, shard: int) -> range:
        """Return the rows of the array that the shard holds."""
        return range(shard * self.shard, min((shard + 1) * self.shard, self.rows))

    def metadata(self) -> dict[str, Any]:
        """Return the content of the array's zarr.json."""
        little = {"name": "bytes", "configuration": {"endian": "little"}}
        to_bytes: dict[str, Any] = little
        if self.dtype is None:
            to_bytes = {"name": "vlen-utf8", "configuration": {}}
        elif self.dtype.itemsize == 1:
            to_bytes = {"name": "bytes"}
        zstd = {"name": "zstd", "configuration": {"level": 1, "checksum": True}}
        checked = {"name": "crc32c"}
        sharding = {
            "chunk_shape": [self.chunk, *self.shape[1:]],
            "codecs": [to_bytes, zstd, checked] if self.compress else [to_bytes, checked],
            "index_codecs": [little, checked],
            "index_location": "end",
        }
        return {
            "zarr_format": 3,
            "node_type": "array",
            "shape": list(self.shape),
            "data_type": "string" if self.dtype is None else self.dtype.name,
            "chunk_grid": {
                "name": "regular",
                "configuration": {"chunk_shape": [self.shard, *self.shape[1:]]},
            },
            "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
            "fill_value": "NaN" if self.dtype is not None and self.dtype.kind == "f" else self.fill,
            "codecs": [{"name": "sharding_indexed", "configuration": sharding}],
            "attributes": self.attributes,
            "dimension_names": list(self.dims),
            "storage_transformers": [],
        }

    @classmethod
    def parse(cls, metadata: Any) -> ArraySpec | None:
        """Return the spec whose `metadata()` this is, or None for any other layout."""
        try:
            sharding = metadata["codecs"][0]["configuration"]
            name = metadata["data_type"]
            spec = cls(
                shape=tuple(metadata["shape"]),
                dtype=None if name == "string" else np.dtype(name),
                dims=tuple(metadata["dimension_names"]),
                chunk=sharding["chunk_shape"][0],
                shard=metadata["chunk_grid"]["configuration"]["chunk_shape"][0],
                compress=len(sharding["codecs"]) == 3,
                attributes=metadata["attributes"],
            )
            return spec if spec.metadata() == metadata else None
        except (KeyError, IndexError, TypeError, ValueError):
            return None


def with_crc(raw: bytes | Array) -> bytes:
    """Return the bytes (or contiguous values) with their CRC-32C behind them, as Zarr does."""
    crc = crc32c(raw).to_bytes(_CRC_BYTES, "little")
    return b"".join((cast(bytes, raw), crc))


def without_crc(data: bytes, what: str) -> bytes:
    """Return the bytes before the CRC-32C. Raises ValueError where it differs."""
    raw = data[:-_CRC_BYTES]
    if data[-_CRC_BYTES:] != crc32c(raw).to_bytes(_CRC_BYTES, "little"):
        raise ValueError(f"the checksum of {what} differs")
    return raw


def encode(spec: ArraySpec, rows: Array) -> bytes:
    """Return the bytes of one inner chunk."""
    raw = rows if spec.dtype is not None else np.frombuffer(VLenUTF8().encode(rows), np.uint8)
    return with_crc(bytes(Zstd(level=1, checksum=True).encode(raw)) if spec.compress else raw)


def decode(spec: ArraySpec, data: bytes) -> Array:
    """Return the rows of one inner chunk. Raises ValueError where its checksum differs."""
    raw = without_crc(data, "a chunk")
    if spec.compress:
        try:
            raw = bytes(Zstd().decode(raw))
        except RuntimeError as error:
            raise ValueError(f"a chunk cannot be decompressed ({error})") from error
    shape = (spec.chunk, *spec.shape[1:])
    if spec.dtype is None:
        return cast(Array, VLenUTF8().decode(raw)).reshape(shape)
    if len(raw) != int(np.prod(shape)) * spec.storage_dtype.itemsize:
        raise ValueError("a chunk has another length than the metadata says")
    return np.frombuffer(raw, spec.storage_dtype).reshape(shape)


def pack_index(lengths: Iterable[int], slots: int) -> bytes:
    """Return the index of a shard whose first chunks have `lengths`; the other slots are empty."""
    ends = np.cumsum(np.fromiter(lengths, np.uint64), dtype=np.uint64)
    spans = np.full((slots, 2), MISSING, "<u8")
    spans[: len(ends), 0] = np.concatenate([np.zeros(1, np.uint64), ends[:-1]])
    spans[: len(ends), 1] = np.diff(ends, prepend=np.uint64(0))
    return with_crc(spans.tobytes())


def parse_index(spec: ArraySpec, tail: bytes, file_bytes: int) -> NDArray[np.uint64]:
    """Return (offset, length) of each chunk of a shard [slot, 2] from the end of its file.

    Raises ValueError where the index is damaged or points outside the file.
    """
    if len(tail) != spec.index_bytes:
        raise ValueError(f"it has {file_bytes} bytes, too few for its index")
    spans = np.frombuffer(without_crc(tail, "its index"), "<u8").reshape(-1, 2)
    there = spans[spans[:, 0] != MISSING]
    if len(there) and int(there.max(initial=0)) > file_bytes:
        raise ValueError("its index points outside the file")
    if len(there) and int(there.sum(axis=1).max()) > file_bytes - spec.index_bytes:
        raise ValueError(f"it has {file_bytes} bytes, fewer than its index says")
    return spans


class ArrayWriter:
    """Collects rows in any order and publishes each shard once, when it is complete.

    Holds the encoded chunks of unfinished shards and the rows of unfinished chunks, nothing else.
    """

    def __init__(self, folder: Path, spec: ArraySpec) -> None:
        self.folder, self.spec = folder, spec
        self._encoded: dict[int, dict[int, bytes]] = {}
        self._staged: dict[int, tuple[Array, NDArray[np.bool_]]] = {}

    def put(self, start: int, rows: Array) -> dict[int, FileSum]:
        """Take the rows from `start` on; return the shards that were published by it.

        Raises ValueError for rows outside the array or given twice within an unfinished shard.
        """
        spec, stop = self.spec, start + len(rows)
        if start < 0 or stop > spec.rows or rows.shape[1:] != spec.shape[1:]:
            raise ValueError(f"rows {start}:{stop} {rows.shape} do not fit {spec.shape}")
        if not len(rows):
            return {}
        rows = np.ascontiguousarray(rows, spec.storage_dtype)
        for chunk in range(start // spec.chunk, -(-stop // spec.chunk)):
            first = chunk * spec.chunk
            low, high = max(start, first), min(stop, first + spec.chunk)
            self._put_chunk(chunk, low - first, rows[low - start : high - start])
        published = {}
        for shard in spec.shards_of(start, stop):
            chunks = self._encoded.get(shard, {})
            if len(chunks) == -(-len(spec.shard_rows(shard)) // spec.chunk):
                published[shard] = self._publish(shard)
        return published

    def _put_chunk(self, chunk: int, start: int, rows: Array) -> None:
        spec = self.spec
        encoded = self._encoded.setdefault(chunk // spec.chunks_per_shard, {})
        if chunk in encoded:
            raise ValueError(f"rows of chunk {chunk} of {self.folder} were written twice")
        if len(rows) < spec.chunk:
            staged, written = self._staged.setdefault(
                chunk,
                (
                    np.full((spec.chunk, *spec.shape[1:]), spec.fill, spec.storage_dtype),
                    np.arange(spec.chunk) >= spec.rows - chunk * spec.chunk,
                ),
            )
            if written[start : start + len(rows)].any():
                raise ValueError(f"rows of chunk {chunk} of {self.folder} were written twice")
            staged[start : start + len(rows)] = rows
            written[start : start + len(rows)] = True
            if not written.all():
                return
            rows = self._staged.pop(chunk)[0]
        encoded[chunk] = encode(spec, rows)

    def _publish(self, shard: int) -> FileSum:
        encoded = self._encoded.pop(shard)
        chunks = [encoded[chunk] for chunk in sorted(encoded)]
        index = pack_index(map(len, chunks), self.spec.chunks_per_shard)
        return publish(self.folder / self.spec.shard_file(shard), [*chunks, index])


def write_array(folder: Path, spec: ArraySpec, rows: Array) -> None:
    """Write all the rows of an array, shard by shard."""
    writer = ArrayWriter(folder, spec)
    for shard in range(spec.shards):
        of_shard = spec.shard_rows(shard)
        writer.put(of_shard.start, rows[of_shard.start : of_shard.stop])


class ArrayReader:
    """Reads rows of an array and checks every byte that it reads.

    Holds no open files. Raises UserError naming the shard file where it is missing or damaged, or
    where a chunk is missing in it.
    """

    def __init__(self, folder: Path, spec: ArraySpec) -> None:
        self.folder, self.spec = folder, spec

    def rows(self, start: int, stop: int) -> Array:
        """Return the rows `start:stop` as a new array."""
        spec = self.spec
        if not 0 <= start <= stop <= spec.rows:
            raise IndexError(f"rows {start}:{stop} of {self.folder}, which has {spec.rows}")
        out = np.empty((stop - start, *spec.shape[1:]), spec.storage_dtype)
        for shard in spec.shards_of(start, stop) if stop > start else ():
            of_shard = spec.shard_rows(shard)
            low, high = max(start, of_shard.start), min(stop, of_shard.stop)
            path = self.folder / spec.shard_file(shard)
            try:
                self._read_shard(path, of_shard.start, low, high, out[low - start : high - start])
            except FileNotFoundError as error:
                raise damaged(path, "the file is missing") from error
            except (OSError, ValueError) as error:
                raise damaged(path, str(error)) from error
        return out

    def all(self) -> Array:
        """Return all the rows."""
        return self.rows(0, self.spec.rows)

    def _read_shard(self, path: Path, origin: int, low: int, high: int, out: Array) -> None:
        size = self.spec.chunk
        with path.open("rb") as file:
            file_bytes = file.seek(0, 2)
            file.seek(max(0, file_bytes - self.spec.index_bytes))
            spans = parse_index(self.spec, file.read(), file_bytes)
            for slot in range((low - origin) // size, -(-(high - origin) // size)):
                if spans[slot, 0] == MISSING:
                    raise ValueError(f"chunk {slot} is missing in it")
                first = origin + slot * size
                file.seek(int(spans[slot, 0]))
                rows = decode(self.spec, file.read(int(spans[slot, 1])))
                begin, end = max(low, first), min(high, first + size)
                out[begin - low : end - low] = rows[begin - first : end - first]
