"""Results to explore: they open like a run's, and what is planted is where it should be."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.explorer_store import THINGS, Sizes, make, scenes
from vista.engine.artifacts import open_artifact
from vista.explore.latents import LatentView
from vista.store.latents import LatentReader
from vista.store.show import describe

SIZES = Sizes(images=9, latents=700, active=12, slots=600, side=6, layers=2, weights=(0.0, 1.0))


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "results"
    make(folder, SIZES)
    return folder


def test_the_catalogue_names_every_artifact_with_its_point(results: Path) -> None:
    listed = json.loads((results / "catalogue.json").read_text())
    artifacts = {entry["folder"]: entry for entry in listed["artifacts"]}
    folders = {
        path.parent.relative_to(results).as_posix() for path in results.glob("*/*/manifest.json")
    }
    assert set(artifacts) == folders and len(folders) == 12
    points = [entry for entry in artifacts.values() if entry["stage"] == "latents"]
    assert [(point["sae_weight"], point["seed"], point["encoder"]) for point in points] == [
        (0.0, 0, "planted"), (1.0, 0, "planted"),
    ]  # fmt: skip
    labels = {
        entry["layer"]: entry for entry in artifacts.values() if entry["stage"] == "label_latents"
    }
    assert sorted(labels) == [0, 1]
    saes = points[0]["parents"]["saes"]
    assert [labels[layer]["parents"]["sae"] for layer in (0, 1)] == [[sae] for sae in saes]


def test_every_artifact_is_whole_and_shown(results: Path) -> None:
    for manifest in results.glob("*/*/manifest.json"):
        open_artifact(manifest.parent).verify()
        text = describe(manifest.parent)
        assert "MISSING" not in text and "cannot be read" not in text


def test_things_fire_on_their_boxes_and_are_found_by_name(results: Path) -> None:
    (folder,) = (results / "latents").glob("*-w1-*")
    view, records = LatentView(folder), scenes(SIZES)
    assert view.store.k == {0: 600, 1: 600}
    for place, record in enumerate(records):
        thing = THINGS.index(record.objects[0].category)
        assert view.label(0, thing) == THINGS[thing]
        box_p = view.geometry(record).box_to_patches(record.objects[0].box)
        fires_p = view.heat_map(1, place, thing).ravel() > 0
        assert np.array_equal(fires_p, box_p) and 0 < box_p.sum() < SIZES.side**2
        assert view.record(place) == record
        x, y, width, height = map(int, record.objects[0].box)
        image = view.images.open(record)
        assert image.size == (record.width, record.height)
        inside = image.getpixel((x + width // 2, y + height // 2))
        corner = (0 if x else record.width - 1, 0 if y else record.height - 1)
        assert inside != image.getpixel(corner)
    top = view.store.top(0, 0)
    assert sorted(top.image.tolist()) == [0, 8]  # the cats


def test_latents_are_of_the_sizes_and_distinct_within_a_token(results: Path) -> None:
    for folder in (results / "latents").iterdir():
        read = LatentReader(folder / "latents.zarr").tokens(0, "image")
        assert 0.5 * SIZES.active < read.nnz.mean() < 2 * SIZES.active
        for b, t in np.ndindex(read.nnz.shape):
            used = slice(0, int(read.nnz[b, t]))
            assert len(set(read.index[b, t, used].tolist())) == read.nnz[b, t]
            assert (np.diff(read.value[b, t, used].astype(float)) <= 0).all()
            assert (read.value[b, t, used] > 0).all()


def test_what_is_there_is_not_made_again(results: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in results.rglob("*.zarr/**/zarr.json")}
    make(results, SIZES)
    assert before == {
        path: path.stat().st_mtime_ns for path in results.rglob("*.zarr/**/zarr.json")
    }
