"""Dense features: what is read is what was written, or an error that names the file."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import xarray
import zarr

from vista.errors import UserError
from vista.store import features as features_module
from vista.store.arrays import MISSING, with_crc
from vista.store.features import FeatureReader, FeatureWriter

GRID, CHANNELS, SHARD = (2, 3), 5, 4
IDS = [f"image-{number:03d}" for number in range(11)]


@pytest.fixture
def dense_bpd() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(11, 6, CHANNELS)).astype(np.float32)


def writer_at(path: Path, **changes: object) -> FeatureWriter:
    given = {"image_ids": IDS, "grid": GRID, "d_vision": CHANNELS, "shard": SHARD, **changes}
    return FeatureWriter(path, **given)  # type: ignore[arg-type]


def write(path: Path, dense_bpd: np.ndarray, shards: range | None = None) -> FeatureWriter:
    writer = writer_at(path)
    for shard in shards if shards is not None else range(writer.shards):
        images = writer.shard_images(shard)
        writer.write_shard(shard, dense_bpd[images.start : images.stop])
    return writer


@pytest.fixture
def store(tmp_path: Path, dense_bpd: np.ndarray) -> Path:
    path = tmp_path / "features.zarr"
    write(path, dense_bpd).close()
    return path


def digests(path: Path) -> dict[str, str]:
    return {
        each.relative_to(path).as_posix(): hashlib.sha256(each.read_bytes()).hexdigest()
        for each in sorted(path.rglob("*"))
        if each.is_file()
    }


def test_batches_are_what_was_written(store: Path, dense_bpd: np.ndarray) -> None:
    reader = FeatureReader(store)
    expected = dense_bpd.astype(np.float16)

    assert (reader.image_ids, reader.grid, reader.shape) == (IDS, GRID, (11, 6, CHANNELS))
    assert np.array_equal(reader.read([10, 3, 3, 0]), expected[[10, 3, 3, 0]])
    assert np.array_equal(reader.read(np.arange(11)), expected)
    assert reader.read([]).shape == (0, 6, CHANNELS)

    out = np.empty((2, 6, CHANNELS), np.float32)
    assert reader.read([7, 1], out=out) is out
    assert np.array_equal(out, expected[[7, 1]])
    with pytest.raises(ValueError, match="out has shape"):
        reader.read([1], out=out)
    with pytest.raises(IndexError):
        reader.read([-1])
    with pytest.raises(IndexError):
        reader.read([11])


def test_zarr_and_xarray_read_the_store_lazily_and_labelled(
    store: Path, dense_bpd: np.ndarray
) -> None:
    expected = dense_bpd.astype(np.float16)
    group = zarr.open_group(store, mode="r")
    assert np.array_equal(np.asarray(group["features"][:]), expected)
    assert np.isnan(group["features"].metadata.fill_value)

    dataset = xarray.open_zarr(store, chunks=None)
    features = dataset["features"]
    assert not features.variable._in_memory
    assert features.dims == ("image", "token", "channel")
    assert features.dtype == np.float16
    assert features.attrs["units"] == "activation"
    assert np.array_equal(features.sel(image="image-003").values, expected[3])
    assert dataset["row"].values.tolist() == [0, 0, 0, 1, 1, 1]
    assert dataset["column"].values.tolist() == [0, 1, 2, 0, 1, 2]
    second_row = features.isel(image=0).where(dataset["row"] == 1, drop=True)
    assert np.array_equal(second_row.values, expected[0, 3:])


def test_equal_input_gives_equal_bytes(tmp_path: Path, dense_bpd: np.ndarray) -> None:
    write(tmp_path / "a.zarr", dense_bpd).close()
    write(tmp_path / "b.zarr", dense_bpd, range(2, -1, -1)).close()
    assert digests(tmp_path / "a.zarr") == digests(tmp_path / "b.zarr")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 6.1e4, -6.1e4])
def test_features_that_float16_does_not_hold_are_refused(
    tmp_path: Path, dense_bpd: np.ndarray, value: float
) -> None:
    writer = writer_at(tmp_path / "features.zarr")
    dense_bpd[2, 3, 4] = value
    with pytest.raises(UserError, match="images 0 to 3"):
        writer.write_shard(0, dense_bpd[:4])
    assert writer.done_shards() == set()
    with pytest.raises(ValueError, match="not written"):
        writer.close()
    with pytest.raises(UserError, match="did not finish"):
        FeatureReader(tmp_path / "features.zarr")


def test_float32_holds_larger_features(tmp_path: Path) -> None:
    writer = writer_at(tmp_path / "features.zarr", image_ids=["a"], dtype="float32")
    writer.write_shard(0, np.full((1, 6, CHANNELS), 7e4))
    writer.close()
    assert FeatureReader(tmp_path / "features.zarr").read([0]).max() == np.float32(7e4)


def test_a_killed_writer_resumes_at_its_last_whole_shard(
    tmp_path: Path, store: Path, dense_bpd: np.ndarray
) -> None:
    path = tmp_path / "again.zarr"
    write(path, dense_bpd, range(2))
    # What a kill leaves behind: a half-written temporary file, and a shard without its record.
    (path / "features" / "c" / "2").mkdir(parents=True)
    (path / "features" / "c" / "2" / ".0.99-1.tmp").write_bytes(b"half")
    (path / "features" / "done" / "00001.json").unlink()

    writer = writer_at(path)
    assert writer.done_shards() == {0}
    for shard in (1, 2):
        images = writer.shard_images(shard)
        writer.write_shard(shard, dense_bpd[images.start : images.stop])
    writer.close()
    assert digests(path) == digests(store)


def test_a_finished_shard_that_was_damaged_since_is_written_again(
    tmp_path: Path, dense_bpd: np.ndarray
) -> None:
    path = tmp_path / "features.zarr"
    write(path, dense_bpd)
    shard = path / "features" / "c" / "1" / "0" / "0"
    content = bytearray(shard.read_bytes())
    content[7] ^= 1
    shard.write_bytes(content)
    (path / "features" / "done" / "00002.json").write_text("{")

    assert writer_at(path).done_shards() == {0}


def test_shards_of_another_store_do_not_count(store: Path) -> None:
    (store / "zarr.json").unlink()
    assert writer_at(store).done_shards() == {0, 1, 2}
    (store / "zarr.json").unlink()
    assert writer_at(store, image_ids=IDS[::-1]).done_shards() == set()


@pytest.mark.parametrize(("key", "value"), [("grid", [3, 2]), ("identity", "another")])
def test_a_changed_attribute_is_noticed(store: Path, key: str, value: object) -> None:
    root = json.loads((store / "zarr.json").read_bytes())
    root["attributes"][key] = value
    (store / "zarr.json").write_text(json.dumps(root))
    with pytest.raises(UserError, match=r"zarr\.json is damaged: .* differs from its checksum"):
        FeatureReader(store)


@pytest.mark.parametrize(
    "changes",
    [
        {"image_ids": IDS[::-1]},
        {"image_ids": [*IDS, "one more"]},
        {"grid": (3, 2)},
        {"d_vision": 6},
        {"dtype": "float32"},
        {"shard": 2},
    ],
)
def test_a_store_of_something_else_is_not_written_into(
    store: Path, changes: dict[str, object]
) -> None:
    before = digests(store)
    with pytest.raises(UserError, match="holds another store"):
        writer_at(store, **changes)
    assert digests(store) == before


@pytest.mark.parametrize(
    ("image_ids", "said"), [([], "at least one"), (["a", ""], "empty"), (["a", "b", "a"], "'a'")]
)
def test_image_ids_are_checked(tmp_path: Path, image_ids: list[str], said: str) -> None:
    with pytest.raises(UserError, match=said):
        writer_at(tmp_path / "features.zarr", image_ids=image_ids)


def test_two_writers_share_a_store(tmp_path: Path, store: Path, dense_bpd: np.ndarray) -> None:
    path = tmp_path / "two.zarr"
    orders = [[0, 1, 2], [2, 1, 0]]

    def work(order: list[int]) -> None:
        writer = writer_at(path)
        for shard in order:
            images = writer.shard_images(shard)
            writer.write_shard(shard, dense_bpd[images.start : images.stop])

    threads = [threading.Thread(target=work, args=(order,)) for order in orders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    writer_at(path).close()
    assert digests(path) == digests(store)


def test_two_processes_each_write_their_shards(
    tmp_path: Path, store: Path, dense_bpd: np.ndarray
) -> None:
    path = tmp_path / "two.zarr"
    np.save(tmp_path / "dense.npy", dense_bpd)
    script = (
        "import sys, numpy as np\n"
        "from vista.store.features import FeatureWriter\n"
        f"dense = np.load({str(tmp_path / 'dense.npy')!r})\n"
        f"writer = FeatureWriter({str(path)!r}, {IDS!r}, {GRID}, {CHANNELS}, shard={SHARD})\n"
        "for shard in map(int, sys.argv[1:]):\n"
        "    images = writer.shard_images(shard)\n"
        "    writer.write_shard(shard, dense[images.start : images.stop])\n"
    )
    jobs = [subprocess.Popen([sys.executable, "-c", script, *each]) for each in (["0", "2"], ["1"])]
    assert [job.wait() for job in jobs] == [0, 0]
    writer_at(path).close()
    assert digests(path) == digests(store)


def replace(file: Path, content: bytes | bytearray) -> None:
    # Not in place: some file systems write a truncated file out at once, 5 ms each.
    file.unlink()
    file.write_bytes(content)


def data_files(store: Path) -> list[Path]:
    """All files of the store but the records of finished shards, which only a writer reads."""
    return [
        each for each in sorted(store.rglob("*")) if each.is_file() and "done" not in each.parts
    ]


def test_any_deleted_file_is_noticed_and_named(store: Path) -> None:
    for file in data_files(store):
        content = file.read_bytes()
        file.unlink()
        with pytest.raises(UserError, match="run snakemake again") as raised:
            FeatureReader(store).read(range(11))
        assert str(file) in str(raised.value)
        file.write_bytes(content)
    FeatureReader(store).read(range(11))


def test_sixty_of_sixty_bit_flips_are_noticed(store: Path) -> None:
    rng = np.random.default_rng(1)
    shards = sorted((store / "features" / "c").glob("*/0/0"))
    for _ in range(60):
        file = shards[rng.integers(len(shards))]
        content = file.read_bytes()
        flipped = bytearray(content)
        flipped[rng.integers(len(content))] ^= 1 << int(rng.integers(8))
        replace(file, flipped)
        with pytest.raises(UserError, match=r"is damaged.*run snakemake again") as raised:
            FeatureReader(store).read(range(11))
        assert str(file) in str(raised.value)
        replace(file, content)


def test_no_bit_flip_anywhere_changes_what_is_read(store: Path, dense_bpd: np.ndarray) -> None:
    rng = np.random.default_rng(2)
    noticed = 0
    for file in data_files(store):
        content = file.read_bytes()
        for _ in range(40):
            flipped = bytearray(content)
            flipped[rng.integers(len(content))] ^= 1 << int(rng.integers(8))
            replace(file, flipped)
            try:
                reader = FeatureReader(store)
                assert np.array_equal(reader.read(range(11)), dense_bpd.astype(np.float16))
                assert (reader.image_ids, reader.grid) == (IDS, GRID)
            except UserError:
                noticed += 1
        replace(file, content)
    # The rest fell on white space in JSON, or on a member that is not read.
    assert noticed > 0.9 * 40 * len(data_files(store))


def test_more_shards_than_may_be_mapped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dense_bpd: np.ndarray
) -> None:
    monkeypatch.setattr(features_module, "MAPPED_SHARDS", 2)
    writer = writer_at(tmp_path / "features.zarr", shard=1)
    for shard in range(11):
        writer.write_shard(shard, dense_bpd[shard : shard + 1])
    writer.close()
    reader = FeatureReader(tmp_path / "features.zarr")
    for _ in range(2):
        assert np.array_equal(reader.read(range(11)), dense_bpd.astype(np.float16))


@pytest.mark.parametrize("shorter", [None, 4])
def test_a_shard_whose_index_lacks_an_image_is_refused(store: Path, shorter: int | None) -> None:
    """The index is sound, its checksum too; one image is not there, or not of the right size."""
    file = store / "features" / "c" / "1" / "0" / "0"
    content = file.read_bytes()
    index_bytes = 16 * SHARD + 4
    spans = np.frombuffer(content[-index_bytes:-4], "<u8").reshape(-1, 2).copy()
    if shorter is None:
        spans[2] = MISSING
    else:
        spans[2, 1] -= np.uint64(shorter)
    replace(file, content[:-index_bytes] + with_crc(spans.tobytes()))
    with pytest.raises(UserError, match="image 6 is missing in it") as raised:
        FeatureReader(store).read([4])
    assert str(file) in str(raised.value)


@pytest.mark.parametrize("sharded", [True, False])
def test_a_store_by_another_program_is_read_through_zarr(
    tmp_path: Path, dense_bpd: np.ndarray, sharded: bool
) -> None:
    path = tmp_path / "foreign.zarr"
    group = zarr.create_group(path, attributes={"grid": [3, 2]})
    array = group.create_array(
        "features",
        shape=dense_bpd.shape,
        chunks=(2, 6, CHANNELS),
        shards=(4, 6, CHANNELS) if sharded else None,
        dtype="float32",
        fill_value=float("nan"),
    )
    array[:] = dense_bpd

    reader = FeatureReader(path)
    assert reader.grid == (3, 2)
    assert reader.image_ids == [str(number) for number in range(11)]
    assert np.array_equal(reader.read([10, 0, 5]), dense_bpd[[10, 0, 5]])

    shutil.rmtree(path / "features" / "c" / "1")
    with pytest.raises(UserError, match=r"c/1/0/0 is damaged: the chunk is missing"):
        FeatureReader(path)


def test_a_chunk_missing_in_a_shard_of_another_program_is_noticed(
    tmp_path: Path, dense_bpd: np.ndarray
) -> None:
    path = tmp_path / "foreign.zarr"
    array = zarr.create_group(path, attributes={"grid": [2, 3]}).create_array(
        "features",
        shape=(4, 6, CHANNELS),
        chunks=(1, 6, CHANNELS),
        shards=(4, 6, CHANNELS),
        dtype="float32",
        fill_value=float("nan"),
    )
    array[:3] = dense_bpd[:3]

    reader = FeatureReader(path)
    assert np.array_equal(reader.read([2]), dense_bpd[[2]])
    with pytest.raises(UserError, match="image 3 is missing"):
        reader.read([3])


def test_what_is_no_store_is_said_to_be_none(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not there"):
        FeatureReader(tmp_path / "features.zarr")
    with pytest.raises(UserError, match=r"zarr\.json is damaged: the file is missing"):
        FeatureReader(tmp_path)
    zarr.create_group(tmp_path / "empty.zarr")
    with pytest.raises(UserError, match="no feature store"):
        FeatureReader(tmp_path / "empty.zarr")


def test_stores_need_neither_torch_nor_zarr() -> None:
    script = (
        "import sys, vista.store.features, vista.store.latents, vista.store.show\n"
        "print(sorted({'torch', 'zarr', 'pyarrow', 'transformers'} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
