"""Slots in blocks: what is read is what one block holds, and only blocks in use are files."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray
import zarr

from vista.errors import UserError
from vista.store import tree
from vista.store.latents import LatentReader, LatentWriter
from vista.store.show import describe
from vista.store.slots import block_slots

# Shards of 4 images: tokens of the first use one block of 2 slots, of the second all four, of the
# third two; within a shard only some images use more than the first block.
N, SIDE, K, BLOCK, D_SAE, SHARD = 10, 2, 7, 2, 30, 4
IDS = [f"image-{number}" for number in range(N)]
MOST = np.array([2, 1, 0, 2, 1, 7, 2, 3, 4, 0])
RNG = np.random.default_rng(0)
NNZ = np.minimum(RNG.integers(0, K + 1, (N, SIDE**2)), MOST[:, None])
NNZ[:, 0] = MOST
INDEX = np.argsort(RNG.random((N, SIDE**2, D_SAE)), axis=2)[..., :K]
VALUE = RNG.integers(1, 9, (N, SIDE**2, K)) / 4
USED = np.arange(K) < NNZ[..., None]
GROUP = "layer_03/image"


def write(path: Path, block: int, batch: int = 3, **changes: Any) -> Path:
    writer = writer_at(path, block)
    for images in writer.pending():
        write_images(writer, images, batch, **changes)
    finish(writer)
    return path


def writer_at(path: Path, block: int) -> LatentWriter:
    kinds = {"image": SIDE**2}
    return LatentWriter(
        path, IDS, (SIDE, SIDE), {3: D_SAE}, kinds, K, d_model=2, shard=SHARD, chunk=2, block=block
    )


def write_images(writer: LatentWriter, images: range, batch: int, nnz: Any = NNZ) -> None:
    for start in range(images.start, images.stop, batch):
        part = slice(start, min(start + batch, images.stop))
        ones = np.ones((part.stop - part.start, SIDE**2))
        writer.set_valid("image", start, ones)
        columns = (INDEX[part], VALUE[part], nnz[part], ones, ones, ones[:, :2])
        writer.write("image", start, 3, *columns)


def finish(writer: LatentWriter) -> None:
    writer.finish(3, "image")
    writer.close()


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The same latents in blocks, and in one block as stores had them before."""
    root = tmp_path_factory.mktemp("stores")
    return write(root / "blocks.zarr", BLOCK), write(root / "one.zarr", K)


@pytest.fixture
def store(stores: tuple[Path, Path], tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(stores[0], tmp_path / "latents.zarr"))


def files(store: Path, name: str = "index") -> list[str]:
    array = store / GROUP / name
    return sorted(each.relative_to(array).as_posix() for each in (array / "c").rglob("*/*/*"))


def digests(store: Path) -> dict[str, str]:
    return {
        each.relative_to(store).as_posix(): hashlib.sha256(each.read_bytes()).hexdigest()
        for each in store.rglob("*")
        if each.is_file()
    }


def everything(store: Path) -> list[Any]:
    """All that a reader gives, also of runs of images that begin and end within chunks."""
    reader = LatentReader(store)
    found: list[Any] = [reader.mean(3, "image"), reader.image_frequency(3)]
    for start in range(N):
        for stop in range(start, N + 1):
            images = slice(start, stop)
            found += vars(reader.tokens(3, "image", images)).values()
            found += [reader.column(3, "image", name, images) for name in ("index", "value")]
    for latent in range(D_SAE):
        found += [*reader.by_latent(3, latent), *reader.top(3, latent)]
        histogram = reader.histogram(3, latent)
        assert histogram is not None
        found += histogram
    return found


def test_blocks_read_like_one_block(stores: tuple[Path, Path]) -> None:
    for in_blocks, whole in zip(*map(everything, stores), strict=True):
        assert np.array_equal(in_blocks, whole) and in_blocks.dtype == whole.dtype
    reader = LatentReader(stores[0])
    assert np.array_equal(reader.column(3, "image", "index"), np.where(USED, INDEX, 0))
    assert np.array_equal(reader.column(3, "image", "value"), np.where(USED, VALUE, 0))


def test_only_blocks_in_use_are_written(stores: tuple[Path, Path]) -> None:
    expected = ["c/0/0/0", *(f"c/1/0/{block}" for block in range(4)), "c/2/0/0", "c/2/0/1"]
    assert files(stores[0]) == files(stores[0], "value") == expected
    assert files(stores[1]) == [f"c/{shard}/0/0" for shard in range(3)]


@pytest.mark.parametrize("name", ["index", "value"])
def test_other_programs_read_blocks_as_one_array(stores: tuple[Path, Path], name: str) -> None:
    expected = np.where(USED, INDEX if name == "index" else VALUE, 0)
    array = zarr.open_group(stores[0], mode="r")[f"{GROUP}/{name}"]
    assert (array.chunks, array.shards) == ((2, SIDE**2, BLOCK), (SHARD, SIDE**2, BLOCK))
    assert np.array_equal(np.asarray(array[:]), expected)
    assert np.array_equal(np.asarray(array[4:9, 1:, 3:]), expected[4:9, 1:, 3:])
    labelled = xarray.open_datatree(stores[0], engine="zarr", chunks=None)[GROUP].to_dataset()
    assert np.array_equal(labelled[name].values, expected)
    assert labelled[name].dtype == LatentReader(stores[0]).column(3, "image", name).dtype


def test_a_lost_block_is_named_where_it_is_in_use(store: Path) -> None:
    for name in ("index", "value"):
        for file in files(store, name):
            path = store / GROUP / name / file
            content = path.read_bytes()
            path.unlink()
            with pytest.raises(UserError, match="is damaged: the file is missing") as raised:
                LatentReader(store).tokens(3, "image")
            assert str(path) in str(raised.value)
            path.write_bytes(content)
    # Images whose tokens do not reach a lost block are read.
    (store / GROUP / "index" / "c/1/0/3").unlink()
    read = LatentReader(store).tokens(3, "image", slice(6, 10))
    assert np.array_equal(read.index, np.where(USED, INDEX, 0)[6:, :, :4])
    with pytest.raises(UserError, match="c/1/0/3"):
        LatentReader(store).column(3, "image", "index", slice(5, 6))


def test_damage_in_a_block_is_named(store: Path) -> None:
    for name in ("index", "value"):
        for file in files(store, name):
            path = store / GROUP / name / file
            content = path.read_bytes()
            for cut in (0, 10, len(content) - 1):
                path.write_bytes(content[:cut])
                with pytest.raises(UserError, match=f"{name}/{file} is damaged"):
                    LatentReader(store).tokens(3, "image")
            path.write_bytes(content)
    for name in ("index", "value"):
        path = store / GROUP / name / "zarr.json"
        path.write_text(path.read_text().replace('"slot"', '"slots"'))
        with pytest.raises(UserError, match="differs from the store's consolidated metadata"):
            LatentReader(store).tokens(3, "image")
        path.write_text(path.read_text().replace('"slots"', '"slot"'))


def test_batches_of_any_size_and_a_killed_writer_give_the_same_files(
    stores: tuple[Path, Path], tmp_path: Path
) -> None:
    def without_sums(store: Path) -> dict[str, str]:
        # Sums of floats depend on how they are cut.
        own = digests(store).items()
        return {name: digest for name, digest in own if "done" not in name and "total" not in name}

    expected = without_sums(stores[0])
    for batch in (1, 2, 4, N):
        assert without_sums(write(tmp_path / f"{batch}.zarr", BLOCK, batch)) == expected
    # Whole batches over the edges of shards.
    writer = writer_at(tmp_path / "over.zarr", BLOCK)
    write_images(writer, range(N), 7)
    finish(writer)
    assert without_sums(tmp_path / "over.zarr") == expected

    killed = writer_at(tmp_path / "killed.zarr", BLOCK)
    write_images(killed, range(7), 3)
    assert writer_at(tmp_path / "killed.zarr", BLOCK).pending() == [range(4, 8), range(8, 10)]
    # What a killed writer left of a shard, and what the next one does not write.
    left = tmp_path / "killed.zarr" / GROUP / "index" / "c/2/0/3"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"left")
    again = writer_at(tmp_path / "killed.zarr", BLOCK)
    for images in again.pending():
        write_images(again, images, 3)
    finish(again)
    assert without_sums(tmp_path / "killed.zarr") == expected


def test_a_shard_that_lost_a_block_is_written_again(tmp_path: Path) -> None:
    path = tmp_path / "z.zarr"
    write_images(writer_at(path, BLOCK), range(N), 5)
    assert writer_at(path, BLOCK).pending() == []
    (path / GROUP / "value" / "c/1/0/2").unlink()
    assert writer_at(path, BLOCK).pending() == [range(4, 8)]


def test_rows_that_come_twice_are_refused(tmp_path: Path) -> None:
    writer = writer_at(tmp_path / "z.zarr", BLOCK)
    write_images(writer, range(4, 6), 2)
    with pytest.raises(ValueError, match="twice"):
        write_images(writer, range(5, 7), 2)


def test_up_to_512_slots_are_one_block(tmp_path: Path) -> None:
    assert [block_slots(k) for k in (1, 16, 512, 513, 16384)] == [1, 16, 512, 256, 256]
    for k, expected in ((512, [4, 1, 512]), (600, [4, 1, 256])):
        LatentWriter(tmp_path / f"{k}", ["a"], (1, 1), {0: 9}, {"image": 1}, k)
        meta = json.loads((tmp_path / f"{k}/layer_00/image/index/zarr.json").read_text())
        assert meta["codecs"][0]["configuration"]["chunk_shape"] == expected
        # In one block every chunk is written, so a value of no data stands for what is not there.
        assert meta["fill_value"] == (65535 if k == 512 else 0)


def as_former(store: Path) -> None:
    """Make a store one of the former format: its name, and no histograms."""
    root = json.loads((store / "zarr.json").read_text())
    nodes = root["consolidated_metadata"]["metadata"]
    del nodes["layer_03/by_latent/histogram"]
    shutil.rmtree(store / "layer_03/by_latent/histogram")
    root["attributes"]["format"] = "vista latents 1"
    root["attributes"]["metadata_sha256"] = tree._digest(root["attributes"], nodes)
    (store / "zarr.json").write_text(json.dumps(root))


def test_stores_of_the_former_format_are_read(stores: tuple[Path, Path], tmp_path: Path) -> None:
    former = Path(shutil.copytree(stores[1], tmp_path / "former.zarr"))
    as_former(former)
    reader, present = LatentReader(former), LatentReader(stores[1])
    assert reader.histogram(3, 0) is None
    for name in ("index", "value", "nnz", "error", "norm2"):
        column = present.column(3, "image", name)
        assert np.array_equal(reader.column(3, "image", name), column)
    assert np.array_equal(reader.by_latent(3, 5).value, present.by_latent(3, 5).value)
    root = json.loads((former / "zarr.json").read_text())
    root["attributes"]["format"] = "vista latents 9"
    (former / "zarr.json").write_text(json.dumps(root))
    with pytest.raises(UserError, match="no 'vista latents 2' store but 'vista latents 9'"):
        LatentReader(former)


def test_blocks_that_are_not_in_use_are_not_shown_as_missing(store: Path) -> None:
    text = describe(store)
    assert "MISSING" not in text and "uint16 [image 10, token 4, slot 7]" in text
    (store / GROUP / "value" / "c/1/0/3").unlink()
    (line,) = [line for line in describe(store).splitlines() if "MISSING" in line]
    assert "float16 [image 10, token 4, slot 7]" in line and "6 files, 1 MISSING" in line


def test_shards_that_are_not_written_yet_are_shown_as_missing(tmp_path: Path) -> None:
    write_images(writer_at(tmp_path / "z.zarr", BLOCK), range(4), 4)
    lines = [line for line in describe(tmp_path / "z.zarr").splitlines() if "slot 7" in line]
    assert len(lines) == 2 and all("1 file, 2 MISSING" in line for line in lines)
