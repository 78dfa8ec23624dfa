"""Probes on single latents of a planted vision SAE, trained here or imported, as stages."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from tests.long_table import read_rows
from tests.unit.stages.test_probing_of_saes import publish, run
from vista.data.records import Box, Object, Record, write_records
from vista.engine.artifacts import Artifact
from vista.errors import UserError
from vista.metrics.latent_probes import LatentProbesSettings
from vista.metrics.latent_probes import stage as latent_probes
from vista.metrics.latent_probes.report import latent_probes_section
from vista.metrics.results import read_figures, read_result
from vista.report.table import LongTable
from vista.sae.neutral import load_sae
from vista.stages import import_vision_sae
from vista.store.features import FeatureReader, FeatureWriter

CLASSES, IMAGES, D = ("cat", "cow", "ankh", "sun", "moon", "star"), 120, 6


@pytest.fixture(scope="module")
def inputs(root: Path) -> dict[str, Artifact]:
    """Each class adds a direction of its own to the second of four patches, where its object lies;
    no channel, but each latent, is such a direction."""
    rng = np.random.default_rng(0)
    rows, _ = np.linalg.qr(rng.standard_normal((D, D)))
    kind = np.arange(IMAGES) % len(CLASSES)
    x = 0.1 * rng.standard_normal((IMAGES, 4, D))
    x[np.arange(IMAGES), 1] += rng.uniform(1, 2, (IMAGES, 1)) * rows[kind]
    objects = [(Object(CLASSES[k], Box(8, 0, 8, 8)),) for k in kind]
    records = [
        Record(f"i{b}", "train" if b < 60 else "test", f"{b}.png", 16, 16, objects=objects[b])
        for b in range(IMAGES)
    ]

    def write_grid(work: Path) -> None:
        writer = FeatureWriter(work / "features.zarr", [r.image_id for r in records], (2, 2), D)
        writer.write_shard(0, x)
        writer.close()
        (work / "geometry.json").write_text('{"fit": "pad", "patch": 8, "size": 16}')

    block = {"encoder": {"source": {"kind": "standin", "family": "dinov2"}, "layer": 2}}
    found = {
        "features": publish(root, "features", write_grid, block),
        "records": publish(
            root, "records", lambda work: write_records(work / "records.parquet", records)
        ),
        "check": publish(
            root, "check", lambda work: (work / "result.json").write_text('{"l0": 1.2}')
        ),
    }
    weights = {"W_enc": rows.T, "W_dec": rows, "b_enc": np.full(D, -0.4), "b_dec": np.zeros(D)}
    file = root / "sae.pt"
    with file.open("wb") as opened:
        relu = {"cls": "Relu", "params": {}}
        header = {"schema": 5, "cfg": {"d_model": D, "d_sae": D, "activation": relu}}
        opened.write((json.dumps(header) + "\n").encode())
        torch.save({name: torch.tensor(w).float() for name, w in weights.items()}, opened)
    return {**found, "sae": imported(root, found)}


def imported(root: Path, inputs: dict[str, Artifact], **settings: Any) -> Artifact:
    sae = {"format": "saev", "path": str(root / "sae.pt"), **settings}
    return run(root, import_vision_sae, {"sae": sae, "name": "it"}, **inputs)


def test_one_latent_tells_a_class_and_no_channel_does(
    root: Path, inputs: dict[str, Artifact]
) -> None:
    settings = LatentProbesSettings(semi_nmf_latents=4, semi_nmf_iterations=20).model_dump()
    found = run(root, latent_probes, settings, **inputs)
    result = read_result(found)
    scores = result["dictionaries"]
    assert list(scores) == ["linear", "neurons", "pca", "random", "sae", "semi_nmf"]
    precision = {name: of["average_precision"]["value"] for name, of in scores.items()}
    assert precision["sae"] > 0.99 and precision["linear"] > 0.99
    assert precision["neurons"] < 0.9 and precision["random"] < 0.9
    assert scores["sae"]["purity"]["value"] > 0.9 and scores["sae"]["coverage"]["value"] > 0.9
    assert scores["neurons"]["gain"]["ci_low"] > 0 and scores["sae"]["gain"] is None
    assert (result["classes"], result["images"], result["patches"]) == (6, 60, 240)
    # A patch in four shows one of six classes.
    assert scores["sae"]["average_precision"]["chance"] == pytest.approx(1 / 24)
    items = pq.read_table(found.file("items.parquet")).to_pylist()
    of_sae = [row for row in items if row["dictionary"] == "sae"]
    assert [row["class"] for row in of_sae] == sorted(CLASSES)
    assert [row["latent"] for row in of_sae] == [CLASSES.index(name) for name in sorted(CLASSES)]
    assert {row["patches"] for row in of_sae} == {10}
    assert {row["layer"] for row in read_rows(found)} == {2}
    assert run(root, latent_probes, settings, **inputs).digest == found.digest
    shown = latent_probes_section(LongTable(read_figures(found, encoder="clip", method="it")))
    assert [len(part.rows) for part in shown.grids] == [6, 6, 6]
    first = shown.grids[0].rows[0]
    assert first[3:6] == ["SAE", "6", "1.000"] and first[9] == "–"
    few = {**settings, "min_images": 11}
    with pytest.raises(UserError, match=r"no class is on patches of 11 images of both 'train'"):
        run(root, latent_probes, few, **inputs)


def test_an_imported_sae_reads_the_block_that_the_features_are_of(
    root: Path, inputs: dict[str, Artifact]
) -> None:
    sae = load_sae(inputs["sae"].path)
    assert (sae.config.layer, sae.config.name, sae.config.d_sae) == (2, "it", D)
    # Standardised on the train split: mean 0, mean norm sqrt(d).
    standard = load_sae(imported(root, inputs, standardise=True).path)
    x = torch.tensor(FeatureReader(inputs["features"].store("features.zarr")).read(range(60)))
    x = x.float().reshape(-1, D)
    scaled = (x - x.mean(dim=0)) / ((x - x.mean(dim=0)).norm(dim=1).mean() / D**0.5)
    torch.testing.assert_close(standard.encode(x), sae.encode(scaled), rtol=1e-3, atol=1e-3)
    with pytest.raises(UserError, match=r"none\.pt cannot be read"):
        imported(root, inputs, path=str(root / "none.pt"))
