"""Monosemanticity and ontology of a planted vision SAE, whose latents are four classes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from tests.long_table import read_rows
from vista.config.vision_sae import LabelVisionSettings
from vista.data.records import Box, Object, Record, read_records, write_records
from vista.engine.artifacts import Artifact, Provenance, open_artifact, publishing
from vista.engine.job import Job, roles
from vista.errors import UserError
from vista.inputs.image_files import image_files
from vista.metrics.monosemanticity import MonosemanticitySettings, sheet
from vista.metrics.monosemanticity import stage as monosemanticity
from vista.metrics.ontology import OntologySettings
from vista.metrics.ontology import stage as ontology
from vista.metrics.results import read_result
from vista.sae.neutral import SaeConfig, SparseAutoencoder, save_sae
from vista.stages import label_vision_latents
from vista.store.features import FeatureWriter

CLASSES, IMAGES, D = ("cat", "cow", "ankh", "umbrella"), 80, 6
KIND = np.arange(IMAGES) % len(CLASSES)
RNG = np.random.default_rng(0)


def publish(
    root: Path, stage: str, write: Callable[[Path], Any], settings: dict[str, Any] | None = None
) -> Artifact:
    node = f"n{len(list(root.glob(f'{stage}/*')))}"
    with publishing(root, stage, node, Provenance(stage, settings or {}, {}, "c", {})) as work:
        assert work is not None
        write(work)
    return open_artifact(root / stage / node)


def run(root: Path, stage: Any, settings: dict[str, Any], **inputs: Any) -> Artifact:
    name = stage.__name__.rsplit(".", 1)[1]
    read = {role: inputs[role] for role in roles(stage.run.inputs_type) if role in inputs}
    return publish(root, name, lambda work: stage.run(Job(name, settings, read, work)), settings)


def features(root: Path, x_bpd: Any, order: Sequence[int]) -> Artifact:
    def write(work: Path) -> None:
        writer = FeatureWriter(
            work / "features.zarr", [f"i{b}" for b in order], (1, x_bpd.shape[1]), x_bpd.shape[2]
        )
        writer.write_shard(0, x_bpd[list(order)])
        writer.close()
        (work / "geometry.json").write_text('{"fit": "pad", "patch": 8, "size": 16}')

    return publish(root, "features", write)


@pytest.fixture(scope="module")
def inputs(root: Path) -> dict[str, Artifact]:
    # The class's direction on the second of four patches, where its object lies.
    x_bpd = 0.05 * RNG.standard_normal((IMAGES, 4, D))
    x_bpd[np.arange(IMAGES), 1, KIND] += RNG.uniform(1, 2, IMAGES)
    # Another direction, of cats alone, beside the cat.
    x_bpd[KIND == 0, 3, 4] += 1.5
    weights = {
        "W_enc": torch.eye(D),
        "W_dec": torch.eye(D),
        "b_dec": torch.zeros(D),
        "b_enc": torch.full((D,), -0.5),
    }
    sae = SparseAutoencoder(SaeConfig("standard", D, D, layer=2, name="planted"), weights)
    records = [
        Record(f"i{b}", "test", f"{b}.png", 16, 16, objects=(Object(kind, Box(8, 0, 8, 8)),))
        for b, kind in enumerate(np.array(CLASSES)[KIND].tolist())
    ]
    found = {
        "records": publish(
            root,
            "records",
            lambda work: write_records(work / "records.parquet", records),
            {"kind": "drawn"},
        ),
        "sae": publish(root, "train_vision_sae", lambda work: save_sae(work, sae)),
        "check": publish(
            root, "check", lambda work: (work / "result.json").write_text('{"l0": 0.6}')
        ),
    }

    def write_grid(work: Path) -> None:
        writer = FeatureWriter(work / "features.zarr", [r.image_id for r in records], (2, 2), D)
        writer.write_shard(0, x_bpd)
        writer.close()
        (work / "geometry.json").write_text('{"fit": "pad", "patch": 8, "size": 16}')

    block = {"encoder": {"source": {"kind": "standin"}}}
    found["features"] = publish(root, "features", write_grid, block)
    settings = {"labels": LabelVisionSettings(split="test").model_dump()}
    labels = run(root, label_vision_latents, settings, **found)

    def write_images(work: Path) -> None:
        (work / "images").mkdir()
        for b in range(IMAGES):
            Image.new("RGB", (16, 16), (int(KIND[b]), b, 0)).save(work / f"images/{b}.png")

    return {**found, "labels": labels, "world": publish(root, "draw_world", write_images)}


def judged(root: Path, inputs: dict[str, Artifact], order: Sequence[int]) -> Artifact:
    """Monosemanticity by an encoder that knows the classes alone, its store in another order."""
    means_d = np.eye(len(CLASSES))[KIND] + 100
    other = features(root, means_d[:, None].astype(np.float32), order)
    settings = MonosemanticitySettings().model_dump(exclude={"judged_by"})
    return run(root, monosemanticity, settings, **inputs, other=other)


def test_latents_of_one_class_are_monosemantic(root: Path, inputs: dict[str, Artifact]) -> None:
    order = RNG.permutation(IMAGES).tolist()
    found = judged(root, inputs, order)
    result = read_result(found)
    scores = {name: each["value"] for name, each in result["scores"].items()}
    # The embeddings' common part is gone: the figure of any two images is near 0.
    assert scores["sae"] == pytest.approx(1, abs=1e-6)
    assert result["scores"]["sae"]["chance"] == pytest.approx(-1 / (IMAGES - 1), abs=1e-6)
    assert scores["neurons"] < 0.9 and scores["random"] < 0.6 and "random_matched" in scores
    assert {row["layer"] for row in read_rows(found)} == {2}
    assert result["silent"]["sae"] == D - len(CLASSES) - 1 and result["images"] == IMAGES
    items = pq.read_table(found.file("items.parquet")).to_pylist()
    sae = [row for row in items if row["dictionary"] == "sae"]
    assert [row["latent"] for row in sae] == list(range(D))
    assert [row["images"] for row in sae] == [20, 20, 20, 20, 20, 0]
    assert found.file("top_images.png").stat().st_size
    assert judged(root, inputs, order).digest == found.digest
    with pytest.raises(UserError, match="lack image 'i0'"):
        judged(root, inputs, range(1, IMAGES))


def test_the_sheet_shows_the_best_latents_and_their_patches(
    root: Path, inputs: dict[str, Artifact], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[Any] = []
    monkeypatch.setattr(sheet, "sheet_figure", lambda rows, *_: shown.extend(rows))
    records = read_records(inputs["records"].file("records.parquet"))
    source = image_files(inputs["records"], inputs["world"], None)
    artifacts = inputs["features"], inputs["labels"]
    score_s = np.array([0.1, 0.5, 0.9, 0.7, np.nan, 0.8])
    fired_s = np.array([9, 9, 2, 3, 0, 9])
    sheet.draw_top_images(tmp_path, source, *artifacts, records, score_s, fired_s, 2, 3)
    assert [name for name, _ in shown] == ["latent 5: 0.80", "latent 3: 0.70"]
    assert [len(tiles) for _, tiles in shown] == [0, 3]  # the labels saw latent 5 nowhere
    for tile in shown[1][1]:
        # Images of its class; the second of 2 x 2 patches is outlined, not the first.
        assert tile[40, 70, 0] == 3
        assert tile[0, 48:].tolist() == [[0, 229, 255]] * 48 and tile[0, 47].tolist() != [
            0,
            229,
            255,
        ]


def test_latents_name_their_class_and_neurons_too(
    root: Path, inputs: dict[str, Artifact], capsys: pytest.CaptureFixture[str]
) -> None:
    found = run(root, ontology, OntologySettings().model_dump(), **inputs)
    result = read_result(found)
    assert "lacks 1 of 4 classes, which are left out: ankh" in capsys.readouterr().err
    assert (result["unknown"], result["classes"]) == (["ankh"], 3)
    rows = pq.read_table(found.file("items.parquet")).to_pylist()
    words = {row["latent"]: row["word"] for row in rows if row["dictionary"] == "sae"}
    assert words == {0: "cat", 1: "cow", 2: None, 3: "umbrella", 4: None}
    # Each channel is a class as well, but for those whose patches lie beside the object.
    neurons = {row["latent"]: row["word"] for row in rows if row["dictionary"] == "neurons"}
    assert [neurons[latent] for latent in range(5)] == ["cat", "cow", None, "umbrella", None]
    assert set(neurons) == set(range(D))
    sae = result["dictionaries"]["sae"]
    assert (sae["named"]["value"], sae["height"]["value"]) == (0.6, 0.0)
    # Of random directions, one a patch, at the patches beside the object: they name less.
    random = result["dictionaries"]["random"]["named"]
    assert 0 < random["n"] <= D and random["value"] < 0.6
    assert {row["layer"] for row in read_rows(found)} == {2}


def test_senses_and_unknown_classes(root: Path, inputs: dict[str, Artifact]) -> None:
    senses = {"ankh": "n03135532"}  # a cross
    settings = OntologySettings(senses=senses).model_dump()
    assert read_result(run(root, ontology, settings, **inputs))["unknown"] == []
    typo = OntologySettings(senses={"Ankh": "n03135532"}).model_dump()
    with pytest.raises(UserError, match="senses names 'Ankh', which is no class of the data"):
        run(root, ontology, typo, **inputs)
    settings = OntologySettings().model_dump()
    strange = [
        Record(f"i{b}", "test", f"{b}.png", 16, 16, objects=(Object("qzx", Box(0, 0, 8, 8)),))
        for b in range(2)
    ]
    records = publish(
        root, "records", lambda work: write_records(work / "records.parquet", strange)
    )
    with pytest.raises(UserError, match=r"none of its 1 classes \('qzx', ...\); set probing"):
        run(root, ontology, settings, **{**inputs, "records": records})
