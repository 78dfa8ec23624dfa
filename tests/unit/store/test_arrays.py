"""The shard files are those of the Zarr v3 specification."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import zarr

from vista.errors import UserError
from vista.store.arrays import ArrayReader, ArraySpec, ArrayWriter, write_array
from vista.store.files import publish_json

SPEC = ArraySpec((10, 3), np.dtype("int32"), ("image", "token"), chunk=2, shard=4)
ROWS = np.arange(30, dtype=np.int32).reshape(10, 3)


@pytest.mark.parametrize("dtype", ["bool", "uint16", "uint32", "int64", "float16", "float64", None])
@pytest.mark.parametrize("compress", [True, False])
def test_zarr_reads_what_is_written(tmp_path: Path, dtype: str | None, compress: bool) -> None:
    rows = np.arange(30).reshape(10, 3)
    values = rows.astype(str).astype(object) if dtype is None else rows.astype(dtype)
    spec = ArraySpec(
        (10, 3), np.dtype(dtype) if dtype else None, ("image", "token"), 2, 4, compress, {"a": 1}
    )
    write_array(tmp_path, spec, values)
    publish_json(tmp_path / "zarr.json", spec.metadata())

    array = zarr.open_array(tmp_path, mode="r")
    assert np.array_equal(np.asarray(array[:]), values)
    assert array.metadata.dimension_names == ("image", "token")
    assert array.attrs["a"] == 1
    assert np.array_equal(ArrayReader(tmp_path, spec).rows(3, 9), values[3:9])


def test_what_zarr_writes_in_this_layout_is_read(tmp_path: Path) -> None:
    publish_json(tmp_path / "zarr.json", SPEC.metadata())
    zarr.open_array(tmp_path, mode="r+")[:] = ROWS

    assert np.array_equal(ArrayReader(tmp_path, SPEC).all(), ROWS)


@pytest.mark.parametrize("dtype", ["uint16", "float16", "bool", None])
def test_only_the_own_layout_is_parsed(dtype: str | None) -> None:
    spec = ArraySpec((10, 3), np.dtype(dtype) if dtype else None, ("a", "b"), 2, 4)
    metadata = spec.metadata()
    assert ArraySpec.parse(metadata) == spec

    assert ArraySpec.parse({**metadata, "chunk_key_encoding": {"name": "v2"}}) is None
    assert ArraySpec.parse({**metadata, "shape": [10]}) is None
    assert ArraySpec.parse({**metadata, "codecs": [{"name": "bytes"}]}) is None
    assert ArraySpec.parse([]) is None


def test_a_shard_appears_only_when_it_is_complete(tmp_path: Path) -> None:
    writer = ArrayWriter(tmp_path, SPEC)
    assert writer.put(1, ROWS[1:4]) == {}
    assert not (tmp_path / "c").exists()

    assert list(writer.put(0, ROWS[:1])) == [0]
    assert [each.name for each in (tmp_path / "c").iterdir()] == ["0"]


def test_rows_that_do_not_fit_or_come_twice_are_refused(tmp_path: Path) -> None:
    writer = ArrayWriter(tmp_path, SPEC)
    with pytest.raises(ValueError, match="do not fit"):
        writer.put(8, ROWS[:3])
    with pytest.raises(ValueError, match="do not fit"):
        writer.put(0, ROWS[:, :2])
    writer.put(0, ROWS[:3])
    with pytest.raises(ValueError, match="twice"):
        writer.put(2, ROWS[2:3])
    with pytest.raises(ValueError, match="twice"):
        writer.put(0, ROWS[:2])


def test_a_chunk_that_is_missing_in_a_shard_is_an_error_not_fill(tmp_path: Path) -> None:
    publish_json(tmp_path / "zarr.json", SPEC.metadata())
    array = zarr.open_array(tmp_path, mode="r+")
    array[0:2] = ROWS[0:2]
    assert (np.asarray(array[2:4]) == SPEC.fill).all()

    reader = ArrayReader(tmp_path, SPEC)
    assert np.array_equal(reader.rows(0, 2), ROWS[:2])
    with pytest.raises(UserError, match=r"c/0/0 is damaged: chunk 1 is missing"):
        reader.rows(0, 4)
    with pytest.raises(UserError, match=r"c/2/0 is damaged: the file is missing"):
        reader.rows(8, 10)


def test_every_bit_flip_of_a_shard_is_noticed(tmp_path: Path) -> None:
    write_array(tmp_path, SPEC, ROWS)
    file = tmp_path / SPEC.shard_file(0)
    intact = file.read_bytes()
    for bit in range(8 * len(intact)):
        flipped = bytearray(intact)
        flipped[bit // 8] ^= 1 << bit % 8
        file.unlink()
        file.write_bytes(flipped)
        with pytest.raises(UserError, match="c/0/0 is damaged"):
            ArrayReader(tmp_path, SPEC).rows(0, 4)
    for length in range(len(intact)):
        file.unlink()
        file.write_bytes(intact[:length])
        with pytest.raises(UserError, match="c/0/0 is damaged"):
            ArrayReader(tmp_path, SPEC).rows(0, 4)
