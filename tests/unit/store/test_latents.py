"""Sparse latents and their inverse: planted activations come back, damage is noticed."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import xarray
import zarr

from tests.former_store import make_former
from vista.errors import UserError
from vista.store.latents import LatentReader, LatentWriter

GRID, SLOTS, WIDTH = (2, 3), 4, 5
LAYERS = {1: 20, 12: 70_000}
KINDS = {"image": 6, "text": 3}
IDS = [f"image-{number}" for number in range(11)]


@dataclass
class Planted:
    """Random latents of one layer and token kind, as a stage would give them."""

    index: np.ndarray
    value: np.ndarray
    nnz: np.ndarray
    error: np.ndarray
    norm2: np.ndarray
    total: np.ndarray

    @classmethod
    def draw(cls, seed: int, d_sae: int, n_tokens: int) -> Planted:
        rng = np.random.default_rng(seed)
        shape = (len(IDS), n_tokens)
        return cls(
            index=rng.permuted(
                np.broadcast_to(np.arange(SLOTS) * (d_sae // SLOTS), (*shape, SLOTS)), axis=2
            )
            + rng.integers(d_sae // SLOTS, size=(*shape, SLOTS)),
            # Few distinct values, so that ties occur.
            value=rng.integers(1, 9, (*shape, SLOTS)) / 4,
            nnz=rng.integers(0, SLOTS + 1, shape),
            error=rng.random(shape),
            norm2=rng.random(shape),
            total=rng.normal(size=(len(IDS), WIDTH)),
        )

    def batch(self, start: int, stop: int) -> tuple[np.ndarray, ...]:
        columns = (self.index, self.value, self.nnz, self.error, self.norm2, self.total)
        return tuple(column[start:stop] for column in columns)


VALID = {kind: np.random.default_rng(n).random((len(IDS), n)) < 0.8 for kind, n in KINDS.items()}
PLANTED = {
    (layer, kind): Planted.draw(layer + n, d_sae, n)
    for layer, d_sae in LAYERS.items()
    for kind, n in KINDS.items()
}


def writer_at(path: Path, **changes: object) -> LatentWriter:
    given: dict[str, object] = {
        "image_ids": IDS,
        "grid": GRID,
        "layers": LAYERS,
        "kinds": KINDS,
        "k": SLOTS,
        "d_model": WIDTH,
        "shard": 8,
        **changes,
    }
    return LatentWriter(path, **given)  # type: ignore[arg-type]


def write_images(writer: LatentWriter, images: range, batch: int = 3) -> None:
    for start in range(images.start, images.stop, batch):
        stop = min(start + batch, images.stop)
        for kind, valid in VALID.items():
            writer.set_valid(kind, start, valid[start:stop])
        for (layer, kind), planted in PLANTED.items():
            writer.write(kind, start, layer, *planted.batch(start, stop))


def finish(writer: LatentWriter) -> None:
    for layer, kind in PLANTED:
        writer.finish(layer, kind)
    writer.close()


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("written") / "latents.zarr"
    writer = writer_at(path)
    write_images(writer, range(len(IDS)))
    finish(writer)
    return path


@pytest.fixture
def store(written: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(written, tmp_path / "latents.zarr"))


def brute_force(layer: int, latent: int) -> list[tuple[int, int, float]]:
    """All (image, token, value) of a latent, by image, then token."""
    planted, found = PLANTED[layer, "image"], []
    for image, token in np.argwhere(VALID["image"]).tolist():
        used = planted.nnz[image, token]
        for slot in np.flatnonzero(planted.index[image, token, :used] == latent):
            found.append((image, token, float(planted.value[image, token, slot])))
    return found


def fired(layer: int) -> list[int]:
    planted = PLANTED[layer, "image"]
    in_use = (np.arange(SLOTS) < planted.nnz[..., None]) & VALID["image"][..., None]
    return np.unique(planted.index[in_use]).tolist()


def digests(path: Path) -> dict[str, str]:
    return {
        each.relative_to(path).as_posix(): hashlib.sha256(each.read_bytes()).hexdigest()
        for each in sorted(path.rglob("*"))
        if each.is_file()
    }


def test_tokens_are_what_was_written(store: Path) -> None:
    reader = LatentReader(store)
    assert (reader.layers, reader.kinds, reader.grid) == (LAYERS, KINDS, GRID)
    assert reader.image_ids == IDS
    assert reader.k == {1: SLOTS, 12: SLOTS}

    for (layer, kind), planted in PLANTED.items():
        for images in (slice(None), slice(3, 9), slice(8, 8)):
            read = reader.tokens(layer, kind, images)
            in_use = np.arange(SLOTS) < planted.nnz[images, :, None]
            most = int(planted.nnz[images].max(initial=1))
            for name in ("index", "value"):
                expected = np.where(in_use, getattr(planted, name)[images], 0)
                assert np.array_equal(reader.column(layer, kind, name, images), expected)
                assert np.array_equal(getattr(read, name), expected[..., :most])
            assert np.array_equal(read.nnz, planted.nnz[images])
            assert np.array_equal(read.error, planted.error[images].astype(np.float32))
            assert np.array_equal(read.norm2, planted.norm2[images].astype(np.float32))
            assert np.array_equal(read.valid, VALID[kind][images])
    assert reader.tokens(1, "image").index.dtype == np.uint16
    assert reader.tokens(12, "image").index.dtype == np.uint32
    pieces = [reader.tokens(1, "text", images).nnz for images in reader.slices(4)]
    assert np.array_equal(np.concatenate(pieces), PLANTED[1, "text"].nnz)


def test_squares_of_totals_are_kept_for_each_image(store: Path) -> None:
    reader = LatentReader(store)
    for (layer, kind), planted in PLANTED.items():
        for images in (slice(None), slice(3, 9)):
            read = reader.total2(layer, kind, images)
            assert read is not None
            assert np.allclose(read, (planted.total[images] ** 2).mean(axis=1))
    with pytest.raises(KeyError, match="control"):
        reader.total2(1, "control")


def test_a_store_without_totals_has_no_squares_of_them(tmp_path: Path) -> None:
    writer = LatentWriter(tmp_path / "z", ["a"], (1, 1), {0: 3}, {"image": 1}, k=1)
    one = np.ones((1, 1))
    writer.set_valid("image", 0, one)
    writer.write("image", 0, 0, one[..., None].astype(int), one[..., None], one, one, one)
    writer.finish(0, "image", np.ones(2))
    writer.close()
    assert LatentReader(tmp_path / "z").total2(0, "image") is None


def test_what_the_store_has_not_is_an_error(store: Path) -> None:
    reader = LatentReader(store)
    with pytest.raises(KeyError, match=r"layer 2.*layers \[1, 12\]"):
        reader.tokens(2, "image")
    with pytest.raises(KeyError, match="control"):
        reader.tokens(1, "control")
    with pytest.raises(KeyError, match="no layer 2"):
        reader.by_latent(2, 0)
    with pytest.raises(IndexError, match="latent 20"):
        reader.by_latent(1, 20)
    with pytest.raises(IndexError):
        reader.by_latent(1, -1)
    with pytest.raises(ValueError, match="step"):
        reader.tokens(1, "image", slice(0, 8, 2))


@pytest.mark.parametrize("layer", LAYERS)
def test_the_inverse_equals_a_scan(store: Path, layer: int) -> None:
    reader = LatentReader(store)
    for latent in [*fired(layer), 0, LAYERS[layer] - 1]:
        expected = brute_force(layer, latent)
        image, token, value = reader.by_latent(layer, latent)
        assert list(zip(image.tolist(), token.tolist(), value.tolist(), strict=True)) == expected


@pytest.mark.parametrize("layer", LAYERS)
def test_the_top_images_are_the_strongest_in_a_stable_order(store: Path, layer: int) -> None:
    reader = LatentReader(store)
    for latent in [*fired(layer), 0]:
        best: dict[int, tuple[int, float]] = {}
        for image, token, value in brute_force(layer, latent):
            if image not in best or value > best[image][1]:
                best[image] = token, value
        expected = sorted(
            ((image, token, value) for image, (token, value) in best.items()),
            key=lambda each: (-each[2], each[0]),
        )
        image, token, value = reader.top(layer, latent)
        assert list(zip(image.tolist(), token.tolist(), value.tolist(), strict=True)) == expected
        maps = reader.top_maps(layer, latent)
        assert maps is not None and maps.shape == (len(expected), 6)
        fires = {(i, t): v for i, t, v in brute_force(layer, latent)}
        for rank, (i, _, _) in enumerate(expected):
            assert maps[rank].tolist() == [fires.get((i, t), 0) for t in range(6)]


@pytest.mark.parametrize("layer", LAYERS)
def test_a_histogram_divides_zero_to_the_largest_activation(store: Path, layer: int) -> None:
    reader = LatentReader(store)
    for latent in fired(layer):
        values = [value for _, _, value in brute_force(layer, latent)]
        histogram = reader.histogram(layer, latent)
        assert histogram is not None
        expected, edges = np.histogram(values, bins=32, range=(0, max(values)))
        assert histogram.counts.tolist() == expected.tolist()
        assert np.allclose(histogram.edges, edges)


def test_a_former_store_has_neither_histograms_nor_maps(store: Path) -> None:
    present = LatentReader(store)
    latent, kept = fired(1)[0], present.token_frequency(1)
    top = present.top(1, latent)
    make_former(store)
    reader = LatentReader(store)
    assert reader.histogram(1, latent) is None and reader.top_maps(1, latent) is None
    assert np.array_equal(reader.token_frequency(1), kept)
    for column, expected in zip(reader.top(1, latent), top, strict=True):
        assert np.array_equal(column, expected)


def test_values_below_zero_are_in_the_first_bin_of_a_histogram(tmp_path: Path) -> None:
    writer = LatentWriter(tmp_path / "z", ["a"], (2, 4), {0: 3}, {"image": 8}, k=1)
    value = np.array([-5, 0, 1, 31, 32, 63, 64, 64], float).reshape(1, 8, 1)
    index = np.array([1, 1, 1, 1, 1, 1, 1, 2]).reshape(1, 8, 1)
    ones = np.ones((1, 8))
    writer.set_valid("image", 0, ones)
    writer.write(
        "image", 0, 0, index, np.where(index == 2, -1, value), ones.astype(int), ones, ones
    )
    writer.finish(0, "image", np.ones(2))
    writer.close()
    mixed, negative = (LatentReader(tmp_path / "z").histogram(0, latent) for latent in (1, 2))
    assert mixed is not None and negative is not None
    # A bin is 2 wide, an edge belongs to the bin above it, the largest value to the last one.
    assert {i: n for i, n in enumerate(mixed.counts.tolist()) if n} == {0: 3, 15: 1, 16: 1, 31: 2}
    assert mixed.edges[[0, 1, 32]].tolist() == [0, 2, 64]
    assert negative.counts.tolist() == [1] + [0] * 31 and not negative.edges.any()


def test_frequencies_count_valid_image_tokens_only(store: Path) -> None:
    reader = LatentReader(store)
    images, tokens = np.zeros(20), np.zeros(20)
    for latent in range(20):
        found = brute_force(1, latent)
        images[latent] = len({image for image, _, _ in found}) / len(IDS)
        tokens[latent] = len(found) / VALID["image"].sum()
    assert np.allclose(reader.image_frequency(1), images)
    assert np.allclose(reader.token_frequency(1), tokens)


def test_the_mean_is_over_valid_tokens_of_all_shards(store: Path) -> None:
    for (layer, kind), planted in PLANTED.items():
        expected = planted.total.sum(axis=0) / VALID[kind].sum()
        assert np.allclose(LatentReader(store).mean(layer, kind), expected, rtol=1e-12)


def test_a_resumed_writer_gives_the_same_bytes(tmp_path: Path, store: Path) -> None:
    path = tmp_path / "again.zarr"
    first = writer_at(path)
    write_images(first, range(8))
    # Killed within the second shard: what was collected of it is lost.
    write_images(first, range(8, 10))
    assert first.done_shards() == {0}

    second = writer_at(path)
    assert second.pending() == [range(8, 11)]
    with pytest.raises(ValueError, match="before all images"):
        second.finish(1, "image")
    with pytest.raises(ValueError, match="are not written"):
        second.close()
    write_images(second, range(8, 11))
    finish(second)
    # The uninterrupted writer cut its batches at 0, 3, 6, ...: sums of shards differ in rounding.
    whole = writer_at(tmp_path / "whole.zarr")
    for images in whole.pending():
        write_images(whole, images)
    finish(whole)
    assert digests(path) == digests(tmp_path / "whole.zarr")
    assert {name for name, digest in digests(path).items() if digests(store)[name] != digest} <= {
        name for name in digests(path) if "total" in name or "mean" in name or "done" in name
    }


def test_a_shard_counts_only_when_all_its_arrays_have_it(tmp_path: Path) -> None:
    path = tmp_path / "latents.zarr"
    write_images(writer_at(path), range(11))
    assert writer_at(path).done_shards() == {0, 1}

    (path / "layer_12" / "text" / "norm2" / "c" / "1" / "0").unlink()
    assert writer_at(path).done_shards() == {0}
    value = path / "layer_01" / "image" / "value" / "c" / "0" / "0" / "0"
    value.write_bytes(value.read_bytes()[:-1] + b"?")
    assert writer_at(path).pending() == [range(8), range(8, 11)]


def test_more_latents_than_slots_is_an_error(tmp_path: Path) -> None:
    writer = writer_at(tmp_path / "latents.zarr")
    index, value, nnz, *rest = PLANTED[1, "image"].batch(0, 2)
    nnz = nnz.copy()
    nnz[1, 2] = SLOTS + 3
    with pytest.raises(UserError, match=r"7 active latents, the store has 4 slots. Raise k"):
        writer.write("image", 0, 1, index, value, nnz, *rest)
    # Spare slots of the caller are no overflow.
    wide = [np.pad(each, ((0, 0), (0, 0), (0, 3))) for each in (index, value)]
    writer.write("image", 0, 1, *wide, np.minimum(nnz, SLOTS), *rest)


def test_layers_may_differ_in_slots(tmp_path: Path) -> None:
    writer = writer_at(tmp_path / "latents.zarr", k={1: 9, 12: SLOTS})
    write_images(writer, range(11))
    finish(writer)
    reader = LatentReader(tmp_path / "latents.zarr")
    assert reader.column(1, "text", "index").shape == (11, 3, 9)
    assert reader.column(12, "text", "index").shape == (11, 3, SLOTS)
    # Of the slots in use alone.
    assert reader.tokens(1, "text").index.shape == (11, 3, SLOTS)


@pytest.mark.parametrize("column", [1, 3, 4])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_values_that_are_not_finite_are_refused(tmp_path: Path, column: int, bad: float) -> None:
    batch = [each.copy() for each in PLANTED[1, "image"].batch(0, 2)]
    batch[2][:] = SLOTS
    batch[column].flat[0] = bad
    with pytest.raises(UserError, match="layer 1, image tokens"):
        writer_at(tmp_path / "latents.zarr").write("image", 0, 1, *batch)


def test_what_lies_in_unused_slots_does_not_matter(tmp_path: Path, store: Path) -> None:
    writer = writer_at(tmp_path / "again.zarr")
    for (layer, kind), planted in PLANTED.items():
        unused = np.arange(SLOTS) >= planted.nnz[..., None]
        index, value, *rest = planted.batch(0, 11)
        writer.write(
            kind, 0, layer, np.where(unused, -7, index), np.where(unused, np.nan, value), *rest
        )
        writer.set_valid(kind, 0, VALID[kind]) if layer == 1 else None
    finish(writer)
    for name in ("index", "value"):
        assert np.array_equal(
            LatentReader(tmp_path / "again.zarr").column(1, "image", name),
            LatentReader(store).column(1, "image", name),
        )


def test_mistakes_of_the_caller_are_refused(tmp_path: Path) -> None:
    writer = writer_at(tmp_path / "latents.zarr")
    index, value, nnz, error, norm2, total = PLANTED[1, "image"].batch(0, 2)
    with pytest.raises(ValueError, match="outside the dictionary"):
        writer.write("image", 0, 1, index + 20, value, nnz + 1 - (nnz > 3), error, norm2, total)
    with pytest.raises(ValueError, match="totals go with d_model"):
        writer.write("image", 0, 1, index, value, nnz, error, norm2)
    with pytest.raises(ValueError, match="differ"):
        writer.write("image", 0, 1, index, value[:1], nnz, error, norm2, total)
    with pytest.raises(ValueError, match="do not fit the grid"):
        writer_at(tmp_path / "other.zarr", kinds={"image": 5})
    with pytest.raises(ValueError, match="do not fit the grid"):
        writer_at(tmp_path / "other.zarr", kinds={"text": 5})
    with pytest.raises(UserError, match="holds another store"):
        writer_at(tmp_path / "latents.zarr", k=SLOTS + 1)


def test_a_given_mean_needs_no_totals(tmp_path: Path) -> None:
    writer = writer_at(tmp_path / "latents.zarr", d_model=None)
    for kind, valid in VALID.items():
        writer.set_valid(kind, 0, valid)
    for (layer, kind), planted in PLANTED.items():
        writer.write(kind, 0, layer, *planted.batch(0, 11)[:-1])
        with pytest.raises(ValueError, match="needs d_model"):
            writer.finish(layer, kind)
    with pytest.raises(ValueError, match="finish was not called"):
        writer.close()
    for layer, kind in PLANTED:
        writer.finish(layer, kind, np.arange(WIDTH))
    writer.close()
    assert LatentReader(tmp_path / "latents.zarr").mean(1, "text").tolist() == [0, 1, 2, 3, 4]


def test_latents_that_never_fire_make_an_empty_inverse(tmp_path: Path) -> None:
    path = tmp_path / "latents.zarr"
    writer = LatentWriter(path, ["a"], (1, 1), {0: 3}, {"image": 1}, k=2, d_model=1)
    nothing = np.zeros((1, 1, 2))
    writer.set_valid("image", 0, np.ones((1, 1), bool))
    flat = nothing[..., 0]
    writer.write("image", 0, 0, nothing, nothing, flat.astype(int), flat, flat, flat)
    writer.finish(0, "image")
    writer.close()

    reader = LatentReader(path)
    assert [len(each) for each in (*reader.by_latent(0, 2), *reader.top(0, 2))] == [0] * 6
    assert reader.image_frequency(0).tolist() == [0, 0, 0]
    assert reader.tokens(0, "image").index.tolist() == [[[0]]]
    histogram = reader.histogram(0, 2)
    assert histogram is not None and not histogram.counts.any() and not histogram.edges.any()
    assert xarray.open_zarr(path, group="layer_00/by_latent", chunks=None).sizes["entry"] == 0


def test_zarr_and_xarray_read_every_group_labelled(store: Path) -> None:
    reader = LatentReader(store)
    group = zarr.open_group(store, mode="r")
    assert np.array_equal(
        np.asarray(group["layer_12/image/index"][:]), reader.column(12, "image", "index")
    )

    tree = xarray.open_datatree(store, engine="zarr", chunks=None)
    latents = tree["layer_01/image"].to_dataset()
    assert latents["value"].dims == ("image", "token", "slot")
    assert latents["nnz"].sel(image="image-4").values.tolist() == (
        PLANTED[1, "image"].nnz[4].tolist()
    )
    assert latents["nnz"].coords["column"].values.tolist() == [0, 1, 2, 0, 1, 2]
    for node in tree.subtree:
        for variable in node.data_vars.values():
            assert {"units", "long_name"} <= set(variable.attrs)
    assert np.array_equal(tree["tokens/text/valid"].values, VALID["text"])


def read_all(path: Path) -> list[np.ndarray]:
    reader = LatentReader(path)
    found: list[np.ndarray] = [np.array(reader.image_ids)]
    for layer, kind in PLANTED:
        found += vars(reader.tokens(layer, kind)).values()
        found.append(reader.mean(layer, kind))
        total2 = reader.total2(layer, kind)
        assert total2 is not None
        found.append(total2)
    for layer in LAYERS:
        found += [reader.image_frequency(layer), reader.token_frequency(layer)]
        for latent in [0, *fired(layer)]:
            found += [*reader.by_latent(layer, latent), *reader.top(layer, latent)]
            histogram = reader.histogram(layer, latent)
            maps = reader.top_maps(layer, latent)
            assert histogram is not None and maps is not None
            found += [*histogram, maps]
    return found


def data_files(store: Path) -> list[Path]:
    """All metadata, and the shards that `read_all` reads: not xarray's labels, of tables one."""
    files = [each for each in sorted(store.rglob("*")) if each.is_file()]
    read = [each for each in files if each.name == "zarr.json"]
    for file in files:
        array, _, shard = file.relative_to(store).as_posix().partition("/c/")
        name = array.rpartition("/")[2]
        later = (name == "histogram" or name.startswith("top_")) and not shard.startswith("0")
        own_label = name == "image" and array != "tokens/image/image"
        if shard and not own_label and not later and name not in ("row", "column", "total"):
            read.append(file)
    return read


def replace(file: Path, content: bytes | bytearray) -> None:
    file.unlink()
    file.write_bytes(content)


def test_any_deleted_file_is_noticed_and_named(store: Path) -> None:
    for file in data_files(store):
        content = file.read_bytes()
        file.unlink()
        with pytest.raises(UserError, match="run snakemake again") as raised:
            read_all(store)
        assert str(file) in str(raised.value)
        file.write_bytes(content)
    read_all(store)


def test_sixty_of_sixty_bit_flips_are_noticed(store: Path) -> None:
    rng = np.random.default_rng(1)
    # Of the large dictionary's tables only the chunks of latents that fire are read.
    files = [
        each
        for each in data_files(store)
        if each.name != "zarr.json" and "layer_12/by_latent/" not in each.as_posix()
    ]
    for _ in range(60):
        file = files[rng.integers(len(files))]
        content = file.read_bytes()
        flipped = bytearray(content)
        flipped[rng.integers(len(content))] ^= 1 << int(rng.integers(8))
        replace(file, flipped)
        with pytest.raises(UserError, match=r"is damaged.*run snakemake again") as raised:
            read_all(store)
        assert str(file) in str(raised.value)
        replace(file, content)


def test_no_flip_in_metadata_changes_what_is_read(store: Path) -> None:
    rng = np.random.default_rng(2)
    expected = read_all(store)
    files = [each for each in data_files(store) if each.name == "zarr.json"]
    for _ in range(40):
        # Every second one in the root, which holds the consolidated metadata of all.
        file = store / "zarr.json" if rng.random() < 0.5 else files[rng.integers(len(files))]
        content = file.read_bytes()
        flipped = bytearray(content)
        flipped[rng.integers(len(content))] ^= 1 << int(rng.integers(8))
        replace(file, flipped)
        try:
            for read, wanted in zip(read_all(store), expected, strict=True):
                assert np.array_equal(read, wanted)
        except UserError:
            pass
        replace(file, content)
