"""Stores of any geometry: written in any order and resumed anywhere, they read as one array."""

from __future__ import annotations

import itertools
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vista.errors import UserError
from vista.store.arrays import ArrayReader, ArraySpec, ArrayWriter, write_array
from vista.store.features import FeatureReader, FeatureWriter
from vista.store.inverse import Block, bands, count_entries, top_images, top_maps
from vista.store.latents import LatentReader, LatentWriter

SEEDS = st.integers(0, 2**32 - 1)


@pytest.fixture(autouse=True, scope="module")
def _no_fsync() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        yield


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    # Thousands of small files: in memory where the system offers that.
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=memory) as path:
        yield Path(path)


def fresh(folder: Path) -> Path:
    return Path(tempfile.mkdtemp(dir=folder)) / "store.zarr"


@st.composite
def array_specs(draw: st.DrawFn) -> ArraySpec:
    chunk = draw(st.integers(1, 5))
    dtype = draw(st.sampled_from(["bool", "uint16", "float16", "float64"]))
    tail = draw(st.lists(st.integers(1, 4), max_size=2))
    return ArraySpec(
        shape=(draw(st.integers(0, 40)), *tail),
        dtype=np.dtype(dtype),
        dims=tuple("abc"[: 1 + len(tail)]),
        chunk=chunk,
        shard=chunk * draw(st.integers(1, 6)),
        compress=draw(st.booleans()),
    )


def cuts(draw: st.DrawFn, n: int) -> list[tuple[int, int]]:
    """Batches that cover range(n) once, in any order."""
    inner = draw(st.lists(st.integers(0, n), max_size=8))
    edges = sorted({0, n, *inner})
    return draw(st.permutations(list(itertools.pairwise(edges))))


@settings(max_examples=60, deadline=None)
@given(data=st.data(), spec=array_specs(), seed=SEEDS)
def test_rows_in_any_order_make_the_same_files(
    folder: Path, data: st.DataObject, spec: ArraySpec, seed: int
) -> None:
    rows = np.random.default_rng(seed).integers(0, 2, spec.shape).astype(spec.dtype)
    whole, pieces = fresh(folder), fresh(folder)
    write_array(whole, spec, rows)
    writer = ArrayWriter(pieces, spec)
    published: list[int] = []
    for start, stop in data.draw(st.composite(lambda draw: cuts(draw, spec.rows))()):
        published += writer.put(start, rows[start:stop])

    assert sorted(published) == list(range(spec.shards))
    for shard in range(spec.shards):
        file = spec.shard_file(shard)
        assert (whole / file).read_bytes() == (pieces / file).read_bytes()
    start = data.draw(st.integers(0, spec.rows))
    stop = data.draw(st.integers(start, spec.rows))
    assert np.array_equal(ArrayReader(pieces, spec).rows(start, stop), rows[start:stop])


@settings(max_examples=60, deadline=None)
@given(
    data=st.data(),
    n_images=st.integers(1, 30),
    grid=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    channels=st.integers(1, 6),
    shard=st.integers(1, 12),
    seed=SEEDS,
)
def test_features_of_any_geometry_resumed_anywhere(
    folder: Path,
    data: st.DataObject,
    n_images: int,
    grid: tuple[int, int],
    channels: int,
    shard: int,
    seed: int,
) -> None:
    rng = np.random.default_rng(seed)
    dense_bpd = rng.normal(size=(n_images, grid[0] * grid[1], channels)).astype(np.float32)
    path, ids = fresh(folder), [f"{number}é" for number in range(n_images)]

    def writer() -> FeatureWriter:
        return FeatureWriter(path, ids, grid, channels, shard=shard)

    order = data.draw(st.permutations(range(writer().shards)))
    kills = data.draw(st.sets(st.integers(0, len(order))))
    current = writer()
    for count, number in enumerate(order):
        if count in kills:
            current = writer()
            assert current.done_shards() == set(order[:count])
        images = current.shard_images(number)
        current.write_shard(number, dense_bpd[images.start : images.stop])
    current.close()

    reader = FeatureReader(path)
    assert (reader.image_ids, reader.grid) == (ids, grid)
    indices = data.draw(st.lists(st.integers(0, n_images - 1), max_size=20))
    assert np.array_equal(reader.read(indices), dense_bpd.astype(np.float16)[indices])


@settings(max_examples=40, deadline=None)
@given(data=st.data(), n_images=st.integers(1, 12), shard=st.integers(1, 5), seed=SEEDS)
def test_damaged_features_are_never_read_silently(
    folder: Path, data: st.DataObject, n_images: int, shard: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    dense_bpd = rng.normal(size=(n_images, 4, 3)).astype(np.float16)
    path, ids = fresh(folder), list(map(str, range(n_images)))
    writer = FeatureWriter(path, ids, (2, 2), 3, shard=shard)
    for number in range(writer.shards):
        images = writer.shard_images(number)
        writer.write_shard(number, dense_bpd[images.start : images.stop])
    writer.close()

    files = sorted(each for each in path.rglob("*") if each.is_file() and "done" not in each.parts)
    file = data.draw(st.sampled_from(files))
    content = bytearray(file.read_bytes())
    damage = data.draw(st.sampled_from(["flip", "cut", "delete", "swap"]))
    position = data.draw(st.integers(0, len(content) - 1))
    if damage == "flip":
        content[position] ^= 1 << data.draw(st.integers(0, 7))
    elif damage == "cut":
        del content[position:]
    elif damage == "swap":
        content[position:] = rng.bytes(len(content) - position)
    file.unlink()
    if damage != "delete":
        file.write_bytes(content)
    try:
        reader = FeatureReader(path)
        assert np.array_equal(reader.read(range(n_images)), dense_bpd)
        assert (reader.image_ids, reader.grid) == (ids, (2, 2))
        # Only white space of JSON can change and go unnoticed.
        assert file.name == "zarr.json" or damage == "swap"
    except UserError:
        pass


def sparse(rng: np.random.Generator, *shape: int, d_sae: int, k: int) -> tuple[np.ndarray, ...]:
    """Latents as a stage gives them: index, value [..., k] and nnz [...]; few distinct values."""
    nnz = rng.integers(0, min(k, d_sae) + 1, shape)
    index = np.argsort(rng.random((*shape, d_sae)), axis=-1)[..., :k]
    index = np.pad(index, [(0, 0)] * len(shape) + [(0, max(0, k - d_sae))])
    return index, rng.integers(-2, 5, (*shape, k)) / 2, nnz


def scan(
    index: np.ndarray, value: np.ndarray, count: np.ndarray, latent: int
) -> list[tuple[int, int, float]]:
    return [
        (image, token, float(value[image, token, slot]))
        for image, token in np.ndindex(count.shape)
        for slot in range(count[image, token])
        if index[image, token, slot] == latent
    ]


def best_images(found: list[tuple[int, int, float]], ranks: int) -> list[tuple[int, int, float]]:
    best: dict[int, tuple[int, int, float]] = {}
    for entry in found:
        if entry[0] not in best or entry[2] > best[entry[0]][2]:
            best[entry[0]] = entry
    return sorted(best.values(), key=lambda each: (-each[2], each[0]))[:ranks]


@settings(max_examples=60, deadline=None)
@given(
    n_images=st.integers(1, 9),
    n_tokens=st.integers(1, 5),
    k=st.integers(1, 5),
    d_sae=st.integers(1, 12),
    step=st.integers(1, 4),
    budget=st.integers(1, 40),
    ranks=st.integers(1, 4),
    seed=SEEDS,
)
def test_the_inverse_equals_a_scan_for_any_memory_budget(
    n_images: int, n_tokens: int, k: int, d_sae: int, step: int, budget: int, ranks: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    index, value, count = sparse(rng, n_images, n_tokens, d_sae=d_sae, k=k)
    index, value = index.astype(np.uint16), value.astype(np.float16)

    def blocks(with_values: bool) -> Iterator[Block]:
        for start in range(0, n_images, step):
            images = slice(start, start + step)
            given = value if with_values else index
            yield Block(start, index[images], given[images], count[images])

    counts = count_entries(blocks, d_sae)
    next_low = 0
    for band in bands(blocks, counts, np.dtype("uint16"), budget):
        assert band.low == next_low
        next_low = band.high
        assert len(band.value) <= budget or band.high == band.low + 1
        top = top_images(band, ranks)
        maps = top_maps(band, top, n_tokens)
        for latent in range(band.low, band.high):
            row = latent - band.low
            entries = slice(band.offsets[row], band.offsets[row + 1])
            found = scan(index, value, count, latent)
            columns = (band.image[entries], band.token[entries], band.value[entries])
            assert list(zip(*(each.tolist() for each in columns), strict=True)) == found
            used = slice(0, int(top.used[row]))
            ranked = (top.image[row, used], top.token[row, used], top.value[row, used])
            assert list(zip(*(each.tolist() for each in ranked), strict=True)) == best_images(
                found, ranks
            )
            assert top.images[row] == len({image for image, _, _ in found})
            expected = np.zeros((ranks, n_tokens), np.float16)
            for rank, image in enumerate(top.image[row, used]):
                for token, strength in ((t, v) for i, t, v in found if i == image):
                    expected[rank, token] = strength
            assert np.array_equal(maps[row], expected)
    assert next_low == d_sae


@settings(max_examples=30, deadline=None)
@given(
    data=st.data(),
    n_images=st.integers(1, 14),
    grid=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    text_tokens=st.integers(1, 4),
    k=st.integers(1, 4),
    d_sae=st.integers(1, 9),
    chunk=st.integers(1, 3),
    chunks=st.integers(1, 3),
    budget=st.integers(1, 200),
    block=st.integers(1, 5),
    seed=SEEDS,
)
def test_latents_of_any_geometry_in_any_batches(
    folder: Path,
    data: st.DataObject,
    n_images: int,
    grid: tuple[int, int],
    text_tokens: int,
    k: int,
    d_sae: int,
    chunk: int,
    chunks: int,
    budget: int,
    block: int,
    seed: int,
) -> None:
    rng = np.random.default_rng(seed)
    kinds = {"image": grid[0] * grid[1], "text": text_tokens}
    layers = {0: d_sae, 7: d_sae + 1}
    ids = list(map(str, range(n_images)))
    path = fresh(folder)
    valid = {kind: rng.random((n_images, n)) < 0.7 for kind, n in kinds.items()}
    given_columns: dict[tuple[int, str], tuple[Any, ...]] = {
        (layer, kind): (
            *sparse(rng, n_images, n, d_sae=size, k=k),
            rng.random((n_images, n)),
            rng.random((n_images, n)),
            rng.integers(-9, 9, (n_images, 3)),
        )
        for layer, size in layers.items()
        for kind, n in kinds.items()
    }

    def writer() -> LatentWriter:
        return LatentWriter(
            path, ids, grid, layers, kinds, k, d_model=3, shard=chunk * chunks, chunk=chunk,
            block=block,
        )  # fmt: skip

    batches = data.draw(st.composite(lambda draw: cuts(draw, n_images))())
    first = writer()
    for start, stop in batches[: data.draw(st.integers(0, len(batches)))]:
        for kind in kinds:
            first.set_valid(kind, start, valid[kind][start:stop])
        for (layer, kind), columns in given_columns.items():
            first.write(kind, start, layer, *(each[start:stop] for each in columns))
    second = writer()
    for images in second.pending():
        for kind in kinds:
            second.set_valid(kind, images.start, valid[kind][images.start : images.stop])
        for (layer, kind), columns in given_columns.items():
            batch = (each[images.start : images.stop] for each in columns)
            second.write(kind, images.start, layer, *batch)
    for layer, kind in given_columns:
        second.finish(layer, kind)
    second.close(budget)

    reader = LatentReader(path)
    for (layer, kind), (index, value, nnz, error, _, total) in given_columns.items():
        start = data.draw(st.integers(0, n_images))
        images = slice(start, data.draw(st.integers(start, n_images)))
        read, run = reader.tokens(layer, kind), reader.tokens(layer, kind, images)
        in_use = np.arange(k) < nnz[..., None]
        for name, expected in (("index", index), ("value", value)):
            expected = np.where(in_use, expected, 0)
            assert np.array_equal(reader.column(layer, kind, name), expected)
            assert np.array_equal(getattr(read, name), expected[..., : nnz.max(initial=1)])
            most = nnz[images].max(initial=1)
            assert np.array_equal(getattr(run, name), expected[images][..., :most])
            # A shard and block of slots is a file if a token reaches it; the first one always is.
            starts = range(0, n_images, chunk * chunks)
            blocks = [
                max(1, -(-int(nnz[i : i + chunk * chunks].max()) // min(block, k))) for i in starts
            ]
            array = path / f"layer_{layer:02d}" / kind / name / "c"
            assert [len(list((array / f"{i}/0").iterdir())) for i in range(len(blocks))] == blocks
        assert np.array_equal(read.error, error.astype(np.float32))
        assert np.array_equal(read.valid, valid[kind])
        n_valid = max(int(valid[kind].sum()), 1)
        assert np.allclose(reader.mean(layer, kind), total.sum(axis=0) / n_valid)
        if kind == "image":
            count = np.where(valid[kind], nnz, 0)
            for latent in range(layers[layer]):
                found = scan(index, value, count, latent)
                entries = reader.by_latent(layer, latent)
                assert list(zip(*(each.tolist() for each in entries), strict=True)) == found
                values = [value for _, _, value in found]
                histogram = reader.histogram(layer, latent)
                assert histogram is not None and histogram.counts.sum() == len(values)
                largest = max([0, *values])
                assert histogram.edges.tolist() == np.linspace(0, largest, 33).tolist()
                positive = np.histogram(
                    [value for value in values if value > 0], 32, (0, largest or 1)
                )[0]
                assert histogram.counts[1:].tolist() == positive[1:].tolist()
                images = len({image for image, _, _ in found})
                assert reader.image_frequency(layer)[latent] == images / n_images
