"""`vista show` on the labels of a vision SAE: labels, neighbours, top images, their heat maps; what
is missing is said."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from tests.published import publish
from vista.cli import main
from vista.data.record import Record
from vista.data.records import write_records
from vista.explore import pictures
from vista.report.heat_panels import Panel, draw_panels
from vista.sae.label_table import LatentLabels, write_labels
from vista.sae.neutral import SaeConfig, SparseAutoencoder, save_sae
from vista.sae.top_table import write_top
from vista.store.features import FeatureWriter

ADDRESS = "label_vision_latents:dinov2-topk"
PLACES = [5, 0]  # patches of the top images of latent 0
COLOUR = (10, 200, 30)


def write_tables(work: Path) -> None:
    share, density = np.array([0.75, 0], np.float32), np.array([0.5, 0], np.float32)
    labels = ("a \x1b[31mred cat", None)
    write_labels(
        work / "labels.parquet",
        LatentLabels(2, "dinov2-topk", 400, labels, share, density, ((), ())),
    )
    columns = {
        "latent": [0, 0],
        "rank": [0, 1],
        "image_id": ["one", "two"],
        "patch": PLACES,
        "activation": [2.5, 1.0],
        "classes": [["cat", "dog"], []],
    }
    write_top(work / "top.parquet", columns)


def write_steering(work: Path) -> None:
    row = {"latent": 0, "coefficient": 16.0, "answer": "a \x1b cat", "label": "cat", "gain": 0.5}
    pq.write_table(pa.Table.from_pylist([row]), work / "steering.parquet")


def write_vision_sae(work: Path) -> None:
    """An SAE whose latents are the two channels of the features."""
    eye = torch.eye(2)
    weights = {"W_enc": eye, "W_dec": eye + eye.flip(0).tril(), "b_dec": 0 * eye[0]}
    config = SaeConfig("standard", 2, 2, 2, "dinov2-topk")
    save_sae(work, SparseAutoencoder(config, {**weights, "b_enc": 0 * eye[0]}))


def write_features(work: Path, patch: int) -> None:
    """Features of "two" and "one": latent 0 fires as the table of top images says, and weakly at
    the last patch of "one"."""
    (work / "geometry.json").write_text(json.dumps({"size": 32, "patch": patch, "fit": "pad"}))
    side = 32 // patch
    features = np.zeros((2, side * side, 2), np.float32)
    features[1, -1, 0], features[1, PLACES[0] % side**2, 0], features[0, 0, 0] = 1.25, 2.5, 1.0
    writer = FeatureWriter(work / "features.zarr", ["two.png", "one.png"], (side, side), 2)
    writer.write_shard(0, features)
    writer.close()


def write_images(work: Path, folder: Path) -> None:
    folder.mkdir()
    names = ("two", "one")
    write_records(
        work / "records.parquet",
        [Record(name, "train", f"{name}.png", 32, 32, ("a picture",)) for name in names],
    )
    for name in names:
        Image.new("RGB", (32, 32), COLOUR).save(folder / f"{name}.png")


def publish_labels(tmp_path: Path, patch: int) -> Path:
    features = publish(tmp_path, "features/dinov2-1", lambda work: write_features(work, patch))
    records = publish(
        tmp_path,
        "records/glyphs-1",
        lambda work: write_images(work, tmp_path / "images"),
        {"kind": "folder", "images": str(tmp_path / "images"), "fetch": []},
    )
    sae = publish(tmp_path, "train_vision_sae/dinov2-topk-1", write_vision_sae)
    inputs: dict[str, Any] = {"sae": sae, "features": features, "records": records}
    publish(tmp_path, "label_vision_latents/dinov2-topk-1", write_tables, **inputs)
    publish(tmp_path, "label_by_steering/dinov2-gemma2-w1-s0-topk-1", write_steering, sae=sae)
    other = publish(tmp_path, "train_vision_sae/clip-topk-1", lambda work: (work / "b").touch())
    publish(tmp_path, "label_by_steering/clip-gemma2-w1-s0-topk-1", write_steering, sae=other)
    return tmp_path


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return publish_labels(tmp_path, patch=8)


def shown(results: Path, capsys: pytest.CaptureFixture[str], *options: str) -> str:
    assert main(["show", ADDRESS, "--results", str(results), *options]) == 0
    return capsys.readouterr().out


def test_a_latent(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(results, capsys, "--latent", "0")
    assert "latent 0 of SAE dinov2-topk" in text
    assert "red cat (in 0.75 of its top images)" in text and "\x1b" not in text
    assert "fires on 0.5000 of 400 patches" in text
    assert "neighbours by cosine of decoder rows:\n  1 - 0.71\n" in text
    (steered,) = [line for line in text.splitlines() if line.startswith("label by steering")]
    assert "dinov2-gemma2-w1-s0-topk: cat (gain 0.50 nats a token at coefficient 16" in steered
    rows = [line.split() for line in text.splitlines() if line.startswith(("one", "two"))]
    assert rows == [["one", "2.500", "1,1", "cat,", "dog"], ["two", "1.000", "0,0", "-"]]
    assert "two" not in shown(results, capsys, "--latent", "0", "--top", "1")
    silent = shown(results, capsys, "--latent", "1")
    assert "label: none" in silent and "It fires at no image." in silent


def test_patches_by_number_without_features_and_none_of_class_tokens(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = publish_labels(tmp_path, patch=32)
    text = shown(results, capsys, "--latent", "0")
    assert "of 400 class tokens" in text and "one         2.500  image  cat, dog" in text
    shutil.rmtree(results / "features")
    assert "one         2.500      5  cat, dog" in shown(results, capsys, "--latent", "0")
    shutil.rmtree(results / "train_vision_sae")
    assert "neighbours" not in shown(results, capsys, "--latent", "0")


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Panel]:
    """The panels that are drawn."""
    panels: list[Panel] = []

    def draw(rows: Any, *texts: Any) -> Any:
        panels.extend(panel for row in rows for panel in row)
        return draw_panels(rows, *texts)

    monkeypatch.setattr(pictures, "draw_panels", draw)
    return panels


def colours_of(path: Path) -> set[Any]:
    with Image.open(path) as picture:
        return {colour for _, colour in picture.convert("RGB").getcolors(1 << 24) or ()}


def test_heat_maps_are_the_activations_on_the_features(
    results: Path, capsys: pytest.CaptureFixture[str], drawn: list[Panel]
) -> None:
    path = results / "latent.png"
    text = shown(results, capsys, "--latent", "0", "--save", str(path))
    assert text.endswith(f"\nWritten: {path}\n")
    assert [panel.label for panel in drawn] == ["image one", "image two"]
    one, two = (panel.activation for panel in drawn)
    expected = np.zeros((4, 4))
    expected[1, 1], expected[3, 3] = 2.5, 1.25
    assert np.array_equal(one, expected)
    assert two[0, 0] == 1 and two.sum() == 1
    assert COLOUR not in colours_of(path)  # in grey, below the heat
    drawn.clear()
    shown(results, capsys, "--latent", "0", "--top", "1", "--save", str(path))
    assert [panel.label for panel in drawn] == ["image one"]


def test_a_picture_of_class_tokens_shows_the_images(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], drawn: list[Panel]
) -> None:
    results, path = publish_labels(tmp_path, patch=32), tmp_path / "latent.png"
    shown(results, capsys, "--latent", "0", "--save", str(path))
    assert [panel.activation.tolist() for panel in drawn] == [[[2.5]], [[1.0]]]
    assert COLOUR in colours_of(path)


@pytest.mark.parametrize(
    ("stage", "says"),
    [
        ("features", "needs its input `features`"),
        ("records", "needs its input `records`"),
        ("train_vision_sae", "needs its input `sae`"),
        ("images", "images"),
    ],
)
def test_what_a_picture_needs_is_said(
    results: Path, capsys: pytest.CaptureFixture[str], stage: str, says: str
) -> None:
    shutil.rmtree(results / stage)
    path = results / "latent.png"
    arguments = ["show", ADDRESS, "--results", str(results), "--latent", "0", "--save", str(path)]
    assert main(arguments) == 2
    assert says in capsys.readouterr().err and not path.exists()


def test_prompts_have_no_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = publish(tmp_path, "prompt_features/words-1", lambda work: write_features(work, 8))
    publish(tmp_path, "label_vision_latents/w-1", write_tables, features=words, records=words)
    arguments = ["show", "label_vision_latents:w", "--results", str(tmp_path), "--latent", "0"]
    assert main([*arguments, "--save", str(tmp_path / "x.png")]) == 2
    assert "there is no image to draw" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--latent", "2"), "SAE dinov2-topk has no latent 2: it has 0..1"),
        (("--latent", "0", "--top", "0"), "--top must be 1 or more"),
        (("--latent", "0", "--layer", "1"), "takes --latent, --top and --save alone"),
        (("--image", "one"), "takes --latent, --top and --save alone"),
        (("--latent", "1", "--save", "x.png"), "fires at no image: nothing to draw"),
    ],
)
def test_what_cannot_be_shown_is_said(
    results: Path, capsys: pytest.CaptureFixture[str], options: tuple[str, ...], says: str
) -> None:
    assert main(["show", ADDRESS, "--results", str(results), *options]) == 2
    assert says in capsys.readouterr().err
