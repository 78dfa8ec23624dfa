"""Groups of a Matryoshka SAE that sae-for-vlm released, from its file to the depths by group."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from tests.unit.stages.test_probing_of_saes import publish, run
from vista.data.records import Box, Object, Record, write_records
from vista.data.wordnet import load_wordnet
from vista.engine.artifacts import Artifact
from vista.inputs.vision import group_ends
from vista.metrics import lca_depth as metric
from vista.metrics.lca_depth import stage as lca_depth
from vista.metrics.results import read_figures, read_result
from vista.sae.neutral import SaeConfig, SparseAutoencoder, load_sae, save_sae
from vista.stages import import_vision_sae, label_vision_latents
from vista.store.features import FeatureWriter

# Each class has a channel; a general latent reads two of them, a special one reads one.
CLASSES = ("cat", "cow", "cup", "key")
W_ENC = np.array([[1, 1, 0, 0], [0, 0, 1, 1], *np.eye(4)], np.float32).T
GROUPS, IMAGES = [2, 3, 1], 48


@pytest.fixture(scope="module")
def inputs(root: Path) -> dict[str, Artifact]:
    """Images of one object in one of four patches, and a file in sae-for-vlm's layout."""
    rng = np.random.default_rng(0)
    kind_b = np.arange(IMAGES) % len(CLASSES)
    x_bpd = np.zeros((IMAGES, 4, len(CLASSES)), np.float32)
    x_bpd[np.arange(IMAGES), 1, kind_b] = rng.uniform(1, 2, IMAGES)
    records = [
        Record(f"i{b}", "train", f"{b}.png", 16, 16, objects=(Object(CLASSES[k], Box(8, 0, 8, 8)),))
        for b, k in enumerate(kind_b)
    ]

    def write_grid(work: Path) -> None:
        writer = FeatureWriter(work / "features.zarr", [r.image_id for r in records], (2, 2), 4)
        writer.write_shard(0, x_bpd)
        writer.close()
        (work / "geometry.json").write_text('{"fit": "pad", "patch": 8, "size": 16}')

    d_sae = W_ENC.shape[1]
    tensors = {
        "W_enc": torch.tensor(W_ENC),
        "b_enc": torch.zeros(d_sae),
        "W_dec": torch.tensor(W_ENC.T.copy()),
        "b_dec": torch.zeros(4),
        "k": torch.tensor(2, dtype=torch.int),
        "threshold": torch.tensor(0.5),
        "group_sizes": torch.tensor(GROUPS),
    }
    torch.save(tensors, root / "ae.pt")
    trainer = {"dict_class": "MatroyshkaBatchTopKSAE", "k": 2}
    (root / "config.json").write_text(json.dumps({"trainer": trainer}))
    block = {"encoder": {"source": {"kind": "standin", "family": "dinov2"}, "layer": 2}}
    features = publish(root, "features", write_grid, block)
    table = publish(root, "records", lambda w: write_records(w / "records.parquet", records))
    return {"features": features, "records": table}


def imported(root: Path, inputs: dict[str, Artifact], **settings: Any) -> Artifact:
    sae = {"format": "sae_for_vlm", "path": str(root / "ae.pt"), **settings}
    return run(root, import_vision_sae, {"sae": sae, "name": "theirs"}, **inputs)


def test_an_imported_matryoshka_sae_is_measured_by_its_groups(
    root: Path, inputs: dict[str, Artifact]
) -> None:
    sae = imported(root, inputs)
    assert load_sae(sae.path).config.architecture == "matryoshka"
    assert group_ends(sae, 6) == [2, 5, 6]
    assert group_ends(imported(root, inputs, standardise=True), 6) == [2, 5, 6]
    labels = run(root, label_vision_latents, {"labels": {"top_k": 12}}, **inputs, sae=sae)
    settings = metric.LcaDepthSettings(permutations=5).model_dump()
    found = run(root, lca_depth, settings, **inputs, sae=sae, labels=labels)
    result = read_result(found)
    assert [group["latents"] for group in result["groups"]] == [2, 5, 6]
    assert [group["depth"]["n"] for group in result["groups"]] == [2, 3, 1]
    rows = [(row.metric, row.k, row.value) for row in read_figures(found, encoder="e", method="m")]
    assert [k for name, k, _ in rows if name == "lca_depth"] == [2, 5, 6]
    # One class to a special latent: the depth is that of the class. Two classes to a general one.
    special = result["groups"][1]["depth"]["value"]
    assert special == pytest.approx(np.mean([depth(name) for name in ("cat", "cow", "cup")]))
    assert result["groups"][2]["depth"]["value"] == depth("key")
    general = result["groups"][0]
    assert general["depth_of_all"]["value"] < general["depth"]["value"] < special
    items = pq.read_table(found.file("items.parquet")).to_pydict()
    assert items["group"] == [0, 0, 1, 1, 1, 2]


def depth(name: str) -> int:
    """Longest way from a noun's synset up to the root."""
    wordnet = load_wordnet(None)

    def up(synset: str) -> int:
        return max((1 + up(above) for above in wordnet.hypernyms[synset]), default=0)

    synset = wordnet.synset(name)
    assert synset is not None
    return up(synset)


def test_groups_end_where_training_nests_them_else_nowhere(tmp_path: Path) -> None:
    weights = {"W_enc": torch.eye(2), "W_dec": torch.eye(2)}
    weights |= {"b_enc": torch.zeros(2), "b_dec": torch.zeros(2)}
    sae = SparseAutoencoder(SaeConfig("standard", 2, 2, 0, "planted"), weights)

    def artifact(stage: str, **settings: Any) -> Artifact:
        return publish(tmp_path, stage, lambda work: save_sae(work, sae), {"sae": settings})

    widths = {"widths": [0.125, 0.5, 1.0]}
    nested = artifact("train_vision_sae", architecture="matryoshka_batchtopk", **widths)
    assert group_ends(nested, 100) == [12, 50, 100]
    assert group_ends(artifact("train_vision_sae", architecture="topk", **widths), 100) == [100]
    # An imported one without groups, and one imported before they were kept.
    assert group_ends(artifact("import_vision_sae", format="sae_for_vlm"), 100) == [100]
