"""`vista show` on the labels of a vision SAE: labels, top images; what is missing is said."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.published import publish
from vista.cli import main
from vista.sae.label_table import LatentLabels, write_labels
from vista.sae.top_table import write_top

ADDRESS = "label_vision_latents:dinov2-topk"


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
        "patch": [5, 0],
        "activation": [2.5, 1.0],
        "classes": [["cat", "dog"], []],
    }
    write_top(work / "top.parquet", columns)


def write_steering(work: Path) -> None:
    row = {"latent": 0, "coefficient": 16.0, "answer": "a \x1b cat", "label": "cat", "gain": 0.5}
    pq.write_table(pa.Table.from_pylist([row]), work / "steering.parquet")


def publish_labels(tmp_path: Path, patch: int) -> Path:
    placing = json.dumps({"size": 32, "patch": patch, "fit": "pad"})
    features = publish(
        tmp_path, "features/dinov2-1", lambda work: (work / "geometry.json").write_text(placing)
    )
    sae = publish(tmp_path, "train_vision_sae/dinov2-topk-1", lambda work: (work / "a").touch())
    inputs = {"sae": sae, "features": features}
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


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--latent", "2"), "SAE dinov2-topk has no latent 2: it has 0..1"),
        (("--latent", "0", "--top", "0"), "--top must be 1 or more"),
        (("--latent", "0", "--layer", "1"), "takes --latent and --top alone"),
        (("--image", "one"), "takes --latent and --top alone"),
    ],
)
def test_what_cannot_be_shown_is_said(
    results: Path, capsys: pytest.CaptureFixture[str], options: tuple[str, ...], says: str
) -> None:
    assert main(["show", ADDRESS, "--results", str(results), *options]) == 2
    assert says in capsys.readouterr().err
