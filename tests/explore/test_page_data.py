"""The page's data layer in Node: every array, table and view equals what Python reads."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import pyarrow.parquet as pq
import pytest
import zarr

from tests.explore.conftest import Read
from tests.explore.planted import LAYERS, POINTS, N
from tests.explore.range_server import Site, serving
from tests.former_store import make_former
from vista.data.geometry import ImageGeometry
from vista.data.masks import encode_mask
from vista.sae.top_table import read_top, write_top
from vista.store.latents import LatentReader

POINT = "latents/dinov2-gemma2-w1-s0-0123456789"


def number_sum(values: Any) -> str:
    return hashlib.sha256(np.asarray(values, np.float64).tobytes()).hexdigest()


@pytest.mark.parametrize("point", POINTS)
def test_every_array_equals_zarr_python(
    read: Read, address: str, planted: Path, point: str
) -> None:
    path = f"latents/{point}-0123456789/latents.zarr"
    (arrays,) = read(address, {"task": "arrays", "path": f"results/{path}"})
    root = zarr.open_group(planted / path, mode="r")
    expected = {
        name: array
        for name, array in root.members(max_depth=None)
        # Of slots in blocks those in use alone are read, below.
        if isinstance(array, zarr.Array)
        and not (array.ndim == 3 and array.chunks[2] < array.shape[2])
    }
    assert set(arrays) == set(expected) and len(arrays) > 30
    for name, array in expected.items():
        values = array[...]
        if array.dtype.kind in "OTU":
            assert arrays[name] == {"texts": values.tolist()}, name
        else:
            assert arrays[name] == {"shape": list(values.shape), "sum": number_sum(values)}, name


def test_every_table_equals_pyarrow(read: Read, address: str, planted: Path) -> None:
    paths = [path.relative_to(planted) for path in sorted(planted.glob("*/*/*.parquet"))]
    assert len(paths) >= 8
    answers = read(address, *({"task": "table", "path": f"results/{path}"} for path in paths))
    for path, answer in zip(paths, answers, strict=True):
        table = pq.read_table(planted / path)
        # JSON has neither NaN nor sets; the tables hold none.
        assert answer["rows"] == json.loads(json.dumps(table.to_pylist())), path
        assert answer["columns"] == table.column_names, path
        for key, value in (table.schema.metadata or {}).items():
            assert answer["metadata"][key.decode()] == value.decode()


def test_rows_and_columns_of_a_table(read: Read, address: str, planted: Path) -> None:
    path = "records/glyphs-0123456789/records.parquet"
    task = {"task": "table", "path": f"results/{path}", "columns": ["width", "captions"]}
    (answer,) = read(address, {**task, "start": 290, "stop": 293})
    expected = pq.read_table(planted / path, columns=["width", "captions"]).slice(290, 3)
    assert answer["rows"] == expected.to_pylist()


def test_rows_with_a_value_are_read_alone(read: Read, tmp_path: Path) -> None:
    latents, top = 4000, 16
    rng = np.random.default_rng(0)
    columns: dict[str, list[Any]] = {
        "latent": np.repeat(np.arange(latents), top).tolist(),
        "rank": np.tile(np.arange(top), latents).tolist(),
        "image_id": [f"{n:012d}.jpg" for n in rng.integers(0, 10**6, latents * top)],
        "patch": rng.integers(0, 256, latents * top).tolist(),
        "activation": rng.random(latents * top).tolist(),
        "classes": [["cat", "a dog"][:n] for n in rng.integers(0, 3, latents * top)],
    }
    folder = tmp_path / "results/label_vision_latents/a-1"
    folder.mkdir(parents=True)
    write_top(folder / "top.parquet", columns)
    path = "results/label_vision_latents/a-1/top.parquet"
    asked = (0, 2345, latents - 1, latents)
    with serving(Site(tmp_path / "results")) as url:
        tasks = [{"task": "where", "path": path, "column": "latent", "value": n} for n in asked]
        answers = read(url, *tasks)
    for latent, answer in zip(asked, answers, strict=True):
        assert answer["rows"] == read_top(folder / "top.parquet", latent)
        assert answer["bytes"] < (folder / "top.parquet").stat().st_size / 5
    assert len(answers[1]["rows"]) == top and not answers[3]["rows"]


def test_latents_of_an_image(read: Read, address: str, planted: Path) -> None:
    reader = LatentReader(planted / POINT / "latents.zarr")
    # Both shards, the image without a last token, the last image.
    cases = [
        (layer, place, token)
        for layer in LAYERS
        for place in (0, 1, 2, 257, 299)
        for token in (0, 15)
    ]
    answers = read(
        address,
        *(
            {"task": "image", "folder": POINT, "layer": a, "place": b, "token": c, "latent": 7}
            for a, b, c in cases
        ),
    )
    for (layer, place, token), answer in zip(cases, answers, strict=True):
        tokens = reader.tokens(layer, "image", slice(place, place + 1))
        nnz = int(tokens.nnz[0, token])
        slots = zip(tokens.index[0, token, :nnz], tokens.value[0, token, :nnz], strict=True)
        expected = [{"latent": int(i), "value": float(v), "token": token} for i, v in slots]
        assert answer["active"] == expected
        assert answer["l0"] == nnz
        assert answer["error"] == float(np.float64(tokens.error[0, token]) / tokens.norm2[0, token])
        assert answer["valid"] == bool(tokens.valid[0, token])
        activation = np.zeros((16, LAYERS[layer]))
        for t in np.flatnonzero(tokens.valid[0]):
            used = int(tokens.nnz[0, t])
            activation[t, tokens.index[0, t, :used]] = tokens.value[0, t, :used]
        assert answer["map"] == activation[:, 7].tolist()
        best = {item["latent"]: (item["value"], item["token"]) for item in answer["strongest"]}
        fires = np.flatnonzero(activation.max(0))
        assert best == {
            int(s): (activation[:, s].max(), int(activation[:, s].argmax())) for s in fires
        }


LATENT = {"task": "latent", "folder": POINT, "layer": 3, "latent": 11, "place": 257, "tokens": 16}


def test_images_of_a_latent(read: Read, address: str, planted: Path) -> None:
    reader = LatentReader(planted / POINT / "latents.zarr")
    (answer,) = read(address, LATENT)
    top, entries, maps = reader.top(3, 11), reader.by_latent(3, 11), reader.top_maps(3, 11)
    assert answer["top"] == [
        {"place": int(b), "token": int(t), "value": float(v)} for b, t, v in zip(*top, strict=True)
    ]
    assert maps is not None and len(maps) == len(top.image) == 64
    assert answer["maps"] == maps.astype(np.float64).tolist()
    assert answer["images"] == entries.image.tolist()
    assert answer["count"] == answer["counts"][11]
    assert answer["firings"] == [np.asarray(column, np.float64).tolist() for column in entries]
    assert answer["share"] == reader.token_frequency(3)[11]
    assert answer["counts"] == (reader.image_frequency(3) * N).round().tolist()
    counts, edges = np.histogram(
        entries.value.astype(np.float64), 32, (0, float(entries.value.max()))
    )
    assert answer["histogram"] == {"counts": counts.tolist(), "most": edges[-1]}
    expected = np.zeros(16)
    at = entries.image == 257
    expected[entries.token[at]] = entries.value[at]
    assert answer["map"] == expected.tolist() and expected.any()


def test_a_former_store_shows_the_same(read: Read, address: str, results: Path) -> None:
    (expected,) = read(address, LATENT)
    make_former(results / POINT / "latents.zarr")
    with serving(Site(results)) as url:
        (answer,) = read(url, LATENT)
    assert answer == expected


def test_a_latent_needs_rows_of_its_tables_alone(read: Read, results: Path) -> None:
    site = Site(results)
    with serving(site) as url:
        (answer,) = read(url, {**LATENT, "task": "view"})
    assert answer == 64
    asked = Counter(path.partition("/latents.zarr/")[2] for path in site.asked)
    tables = ("offset", "image_count", "top_image", "top_token", "top_value", "top_map")
    names = {path.partition("layer_03/by_latent/")[2].partition("/")[0] for path in asked}
    assert names - {""} == {*tables, "histogram"}
    # Small files come whole, of a larger one the index and a chunk; nothing is asked for twice.
    assert len(asked) == 8 and max(asked.values()) <= 2
    assert asked["zarr.json"] == asked["layer_03/by_latent/image_count/c/0"] == 1


def test_contexts_of_a_latent(read: Read, address: str) -> None:
    folder = "label_latents/gemma2-l3-0123456789"
    (answer,) = read(address, {"task": "contexts", "folder": folder, "latent": 5})
    assert answer["contexts"] == ["5.5: a «kätzchen» sat", "0.25: on"]
    assert answer["label"]["text"] == "kätzchen" and answer["layer"] == 3


@pytest.mark.parametrize("shape", [(64, 64), (96, 48), (40, 81), (1, 300), (33, 7)])
@pytest.mark.parametrize(
    "placing",
    [
        {"size": 32, "patch": 8, "fit": "pad"},
        {"size": 37, "patch": 5, "fit": "crop"},
        {"size": 30, "patch": 5, "fit": "pad", "pool": 4},
        {"size": 28, "patch": 7, "fit": "pad", "per_patch": 3},
        {"size": 28, "patch": 7, "fit": "pad", "per_patch": 2, "frames": 2},
    ],
)
def test_geometry_is_that_of_python(
    read: Read, address: str, shape: tuple[int, int], placing: dict[str, Any]
) -> None:
    width, height = shape
    (answer,) = read(
        address, {"task": "geometry", "width": width, "height": height, "placing": placing}
    )
    # The page shows the frames of a clip side by side.
    tokens = {key: value for key, value in placing.items() if key != "frames"}
    geometry = ImageGeometry(width, height, **tokens)
    assert answer["grid"] == list(geometry.grid)
    image = answer["image"]
    assert (image["x"], image["y"]) == geometry.offset
    assert (image["width"], image["height"]) == geometry.resized
    per_patch = geometry.per_patch
    (sx, sy), (ox, oy) = geometry.scale, geometry.offset
    for p, box in enumerate(answer["boxes"]):
        x, y, w, h = geometry.patch_to_box(p)
        left = x * sx + ox + (p % per_patch) * w * sx / per_patch
        expected = (left, y * sy + oy, w * sx / per_patch, h * sy)
        assert tuple(box[key] for key in ("x", "y", "width", "height")) == pytest.approx(expected)
    assert answer["same"] == list(range(geometry.n_patches))


def test_sums_and_halves(read: Read, address: str) -> None:
    rng = np.random.default_rng(0)
    inputs = [rng.integers(0, 256, n).tolist() for n in (0, 1, 3, 4, 5, 1000, 1003)]
    *sums, halves = read(address, *({"task": "crc", "bytes": b} for b in inputs), {"task": "half"})
    assert sums == [google_crc32c.value(bytes(b)) for b in inputs]
    expected = np.arange(65536, dtype=np.uint16).view(np.float16).astype(np.float64)
    got = np.array([float(text) for text in halves])
    np.testing.assert_array_equal(got, expected)


def damage(results: Path, file: str, at: int) -> None:
    path = results / POINT / "latents.zarr" / file
    content = bytearray(path.read_bytes())
    content[at] ^= 4
    path.write_bytes(content)


IMAGE = {"task": "image", "folder": POINT, "layer": 1, "place": 0, "token": 0, "latent": 0}


@pytest.mark.parametrize(("at", "what"), [(20, "a chunk"), (-20, "its index")])
def test_damage_is_named(read: Read, results: Path, at: int, what: str) -> None:
    damage(results, "layer_01/image/value/c/0/0/0", at)
    with serving(Site(results)) as url:
        (answer,) = read(url, IMAGE)
    assert answer["expected"], answer
    assert "latents.zarr/layer_01/image/value is damaged (a checksum differs)" in answer["problem"]


def test_what_is_lost_is_named(read: Read, results: Path) -> None:
    lost = results / POINT / "latents.zarr" / "layer_01" / "image" / "index" / "c" / "0" / "0" / "0"
    lost.unlink()
    table = results / "label_latents" / "gemma2-l1-0123456789" / "labels.parquet"
    table.write_bytes(table.read_bytes()[:-9])
    with serving(Site(results)) as url:
        answers = read(
            url,
            IMAGE,
            {"task": "contexts", "folder": "label_latents/gemma2-l1-0123456789", "latent": 1},
        )
    assert all(answer["expected"] for answer in answers), answers
    assert (
        "layer_01/image/index/c/0/0/0 is missing: the artifact is damaged" in answers[0]["problem"]
    )
    assert "labels.parquet is damaged" in answers[1]["problem"]


def test_a_server_without_ranges_is_refused(read: Read, planted: Path) -> None:
    site = Site(planted)
    site.ranges = False
    with serving(site) as url:
        (answer,) = read(url, IMAGE)
    assert "does not send byte ranges" in answer["problem"]


def test_masks_equal_those_of_python(read: Read, address: str) -> None:
    rng = np.random.default_rng(0)
    masks = [rng.random((7, 5)) < share for share in (0.0, 0.3, 0.7, 1.0)]
    masks += [np.kron(rng.random((6, 9)) < 0.5, np.ones((40, 50))) > 0]  # long runs
    tasks = [
        {"task": "mask", "text": encode_mask(mask)["counts"], "width": w, "height": h}
        for mask in masks
        for h, w in [mask.shape]
    ]
    for mask, answer in zip(masks, read(address, *tasks), strict=True):
        drawn = np.zeros(mask.shape, bool)
        for x, rows in enumerate(answer["columns"]):
            for start, stop in rows:
                drawn[start:stop, x] = True
        assert (drawn == mask).all()
        # The outline is as long as the border between the mask and the rest.
        padded = np.pad(mask, 1).astype(int)
        border = sum(int(np.abs(np.diff(padded, axis=axis)).sum()) for axis in (0, 1))
        steps = re.findall(r"M(\d+) (\d+)(?:h1|V(\d+))", answer["paths"]["outline"])
        assert sum(int(to) - int(y) if to else 1 for _, y, to in steps) == border


def test_what_is_no_mask_is_left_out(read: Read, address: str) -> None:
    texts = ["~", "P", "_", "0" * 9, "\x7f", "é", "p" * 40 + "0", "o0", "11"]
    tasks = ({"task": "mask", "text": text, "width": 3, "height": 4} for text in texts)
    assert read(address, *tasks) == [{}] * len(texts)


def test_bars_are_cut_off_for_outliers_alone(read: Read, address: str) -> None:
    def figures(*values: float | None) -> dict[str, Any]:
        rows = [{"value": x, "ci_low": None, "ci_high": None, "chance": None} for x in values]
        return {"task": "scale", "figures": rows}

    shares = [0.01] * 50 + [0.9]
    cases = {
        (0.1, 0.5, 0.7, 8000.0): [0, 0.7],
        (-0.5, 2.0, 1.5, -900.0): [-0.5, 2.0],
        (5.0, 9.0, 40.0, None): [0, 40.0],
        tuple(shares): [0, 0.9],
        (0.0, 0.0): [0, 0],
        (): [0, 0],
    }
    assert read(address, *(figures(*values) for values in cases)) == list(cases.values())


def test_addresses_at_neuronpedia_are_made_of_names_alone(read: Read, address: str) -> None:
    good = "gemma-2-2b/12-gemmascope-res-16k"
    bad = [
        "",
        "a",
        "a/",
        "/b",
        "../b",
        "a/../b",
        "a/b/c",
        'a/b"x',
        "a/b c",
        "a/b?c",
        "a/b#c",
        "a//b",
    ]
    bad += ["javascript:alert(1)/b", "a/b\n", "ä/b"]
    (answer,) = read(address, {"task": "published", "texts": [good, *bad]})
    assert answer == [f"https://www.neuronpedia.org/{good}/7"] + [None] * len(bad)
