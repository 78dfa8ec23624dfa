"""Released vision SAEs of a repository: fetched, imported, and the same as from a local file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fake_hub import FakeHub

from tests.unit.sae.test_released import D, Harmful, K, S, X, save_prisma, save_saev, weights
from tests.unit.stages.test_probing_of_saes import publish, run
from vista.data.records import write_records
from vista.engine.artifacts import Artifact
from vista.errors import UserError
from vista.sae.neutral import load_sae
from vista.stages import fetch_model, import_vision_sae
from vista.store.features import FeatureWriter

REPO = "maker/saes"


def saev(folder: Path) -> str:
    header = {"schema": 1, "cls": "TopK", "cfg": {"d_vit": D, "top_k": K}}
    save_saev(folder / "sae.pt", header, weights())
    return "sae.pt"


def prisma(folder: Path) -> str:
    return save_prisma(folder, weights(), ".safetensors").name


def sae_for_vlm(folder: Path) -> str:
    """As dictionary_learning writes a step of its training: config.json is beside checkpoints/."""
    w = weights()
    tensors = {
        "encoder.weight": w["W_enc"].T.contiguous(),
        "encoder.bias": w["b_enc"],
        "decoder.weight": w["W_dec"].T.contiguous(),
        "b_dec": w["b_dec"],
        "k": torch.tensor(K, dtype=torch.int),
        "threshold": torch.tensor(1.2),
    }
    trainer = folder / "trainer_0"
    (trainer / "checkpoints").mkdir(parents=True)
    torch.save(tensors, trainer / "checkpoints" / "ae_100.pt")
    (trainer / "config.json").write_text(json.dumps({"trainer": {"dict_class": "BatchTopKSAE"}}))
    return "trainer_0/checkpoints/ae_100.pt"


def patchsae(folder: Path) -> str:
    torch.save({"cfg": {"block_layer": 4}, "state_dict": weights()}, folder / "clip.pt")
    return "clip.pt"


@pytest.fixture
def inputs(tmp_path: Path) -> dict[str, Artifact]:
    """Features of block 4 and their records, of which an import reads the width alone."""

    def write(work: Path) -> None:
        writer = FeatureWriter(work / "features.zarr", ["a"], (1, 1), D)
        writer.write_shard(0, np.zeros((1, 1, D)))
        writer.close()

    block = {"encoder": {"source": {"kind": "standin", "family": "dinov2"}, "layer": 4}}
    root = tmp_path / "results"
    return {
        "features": publish(root, "features", write, block),
        "records": publish(root, "records", lambda work: write_records(work / "r.parquet", [])),
    }


def fetched(root: Path, hub: FakeHub, file: str) -> Artifact:
    order = {"repo": REPO, "revision": hub.commit(REPO), "file": file}
    return run(root / "results", fetch_model, order)


def imported(root: Path, inputs: dict[str, Artifact], **source: Any) -> Artifact:
    return run(root / "results", import_vision_sae, {"sae": source, "name": "it"}, **inputs)


@pytest.mark.parametrize(
    ("save", "files"),
    [
        (saev, {"sae.pt"}),
        (prisma, {"weights.safetensors", "config.json"}),
        (sae_for_vlm, {"ae_100.pt", "config.json"}),
        (patchsae, {"clip.pt"}),
    ],
)
def test_from_a_repository_as_from_a_file(
    hub: FakeHub,
    tmp_path: Path,
    inputs: dict[str, Artifact],
    save: Callable[[Path], str],
    files: set[str],
) -> None:
    folder = hub.root / REPO
    (folder / "other").mkdir(parents=True)
    for name in ("README.md", "other/sae.pt", "other/config.json"):
        (folder / name).write_bytes(b"not asked for")
    file, format = save(folder), save.__name__
    fetch = fetched(tmp_path, hub, file)
    assert {path.name for path in fetch.folder("model").rglob("*.*")} == files
    source = json.loads(fetch.file("source.json").read_text())
    assert source["commit"] == hub.commit(REPO)

    asked = len(hub.requests)
    pinned = {"format": format, "repo": REPO, "revision": hub.commit(REPO), "file": file}
    ours = imported(tmp_path, {**inputs, "fetched": fetch}, **pinned)
    assert len(hub.requests) == asked
    local = imported(tmp_path, inputs, format=format, path=str(folder / file))
    sae, same = load_sae(ours.path), load_sae(local.path)
    assert sae.config == same.config and sae.config.d_sae == S
    z = sae.encode(X)
    assert (z > 0).any() and torch.equal(z, same.encode(X)) and torch.equal(sae(X), same(X))


def test_says_what_the_repository_has_instead(hub: FakeHub, tmp_path: Path) -> None:
    (hub.root / REPO).mkdir(parents=True)
    for name in ("README.md", *(f"layer_{layer}.pt" for layer in range(9))):
        (hub.root / REPO / name).write_bytes(b"")
    with pytest.raises(
        UserError, match=r"no file 'layer_11\.pt' at \w{40}; it has layer_1\.pt, .*"
    ):
        fetched(tmp_path, hub, "layer_11.pt")
    with pytest.raises(UserError, match=r"and 2 more: correct `file` or `revision`"):
        fetched(tmp_path, hub, "../layer_1.pt")


def test_a_pickle_of_a_repository_is_not_run(
    hub: FakeHub, tmp_path: Path, inputs: dict[str, Artifact], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (hub.root / REPO).mkdir(parents=True)
    torch.save({"state_dict": weights(), "cfg": Harmful()}, hub.root / REPO / "clip.pt")
    fetch = fetched(tmp_path, hub, "clip.pt")
    pinned = {"format": "patchsae", "repo": REPO, "revision": "main", "file": "clip.pt"}
    with pytest.raises(UserError, match="it holds more than tensors"):
        imported(tmp_path, {**inputs, "fetched": fetch}, **pinned)
    assert not Path("harm").exists()
