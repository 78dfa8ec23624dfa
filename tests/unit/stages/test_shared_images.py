"""Several rows about one image, and a second stage of training: what the stages read, by value."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from word_tokenizer import word_tokenizer

from vista.config.data import Split
from vista.config.projector import LatentsSettings, TrainingStage
from vista.data.records import Box, Object, Record, Turn, write_records
from vista.engine.artifacts import Artifact, Provenance, open_artifact, publishing
from vista.engine.job import Job, roles
from vista.inputs import models as loading
from vista.metrics.caption import CaptionSettings
from vista.metrics.caption import stage as caption
from vista.metrics.probe import ProbeSettings
from vista.metrics.probe import stage as probe
from vista.stages import latents, train_projector
from vista.store.features import FeatureReader, FeatureWriter
from vista.store.latents import LatentReader

WORDS = ["<pad>", "<bos>", "<eos>", "<unk>", "what", "?", "cat", "dog", "on", "sand"]
D_MODEL, D_VISION, PATCHES = 16, 12, 4
# The file of each record's image: two of them are in three records, and in both splits.
PATHS = ["c", "a", "b", "a", "d", "c", "e", "b", "f", "d", "a", "e"]
DISTINCT = list(dict.fromkeys(PATHS))
# The settings of the language model, which the fixture puts in the place of any other.
LLM = {"source": {"kind": "standin", "family": "llama"}}


def publish(root: Path, stage: str, write: Callable[[Path], object]) -> Artifact:
    with publishing(root, stage, "one", Provenance(stage, {}, {}, "code", {})) as work:
        assert work is not None
        write(work)
    return open_artifact(root / stage / "one")


@pytest.fixture(scope="module")
def llm() -> Any:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from vista.language.model import LanguageModel

    fast = word_tokenizer(WORDS)
    config = LlamaConfig(
        vocab_size=len(WORDS),
        hidden_size=D_MODEL,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        initializer_range=0.5,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return LanguageModel(LlamaForCausalLM(config), fast)


@pytest.fixture
def frozen(tmp_path: Path, llm: Any, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The models around the images: language model, an SAE and a projector."""
    import torch

    from vista.projector.module import make_projector, save_projector
    from vista.sae.neutral import SaeConfig, SparseAutoencoder, save_sae

    monkeypatch.setattr(loading, "load_llm", lambda *_: llm)
    generator = torch.Generator().manual_seed(0)
    config = SaeConfig("standard", D_MODEL, 32, 1, "test-l1")
    weights = {
        name: 0.3 * torch.randn(shape, generator=generator)
        for name, shape in config.weight_shapes().items()
    }
    sae = SparseAutoencoder(config, weights)
    projector = make_projector("linear", D_VISION, D_MODEL, 3)
    return {
        "saes": [publish(tmp_path, "import_sae", lambda work: save_sae(work, sae))],
        "projector": publish(tmp_path, "first", lambda work: save_projector(work, projector)),
    }


def images(root: Path, *, shared: bool) -> dict[str, Artifact]:
    """Records and features; unless `shared`, each record has a file of its own, equal or not."""
    values = dict(
        zip(
            DISTINCT,
            np.random.default_rng(0).normal(size=(len(DISTINCT), PATCHES, D_VISION)),
            strict=True,
        )
    )
    records = []
    for i, path in enumerate(PATHS):
        split: Split = "train" if i % 3 == 0 else "test"
        noun = ("cat", "dog")[DISTINCT.index(path) % 2]
        records.append(
            Record(
                f"row{i}",
                split,
                path if shared else f"row{i}",
                8,
                8,
                turns=(Turn("what ?", f"{noun} on sand"),),
                objects=(Object(noun, Box(0.0, 0.0, 8.0, 4.0)),),
            )
        )
    stored = np.stack([values[path] for path in (DISTINCT if shared else PATHS)])

    def write_features(work: Path) -> None:
        ids = [f"image{i}" for i in range(len(stored))]
        writer = FeatureWriter(work / "features.zarr", ids, (2, 2), D_VISION)
        writer.write_shard(0, stored)
        writer.close()
        (work / "geometry.json").write_text('{"size": 8, "patch": 4, "fit": "pad"}')

    return {
        "records": publish(
            root, "records", lambda work: write_records(work / "records.parquet", records)
        ),
        "features": publish(root, "features", write_features),
    }


def run_both(
    tmp_path: Path, stage: ModuleType, settings: dict[str, Any], inputs: dict[str, Any]
) -> tuple[Artifact, Artifact]:
    """Run a stage on images that rows share, and on the same images with a file for each row."""
    made = []
    for shared in (True, False):
        root = tmp_path / str(shared)
        available = {**inputs, **images(root, shared=shared)}
        wanted = roles(stage.run.inputs_type)
        given = {role: available[role] for role in wanted if role in available}
        made.append(
            publish(root, "stage", lambda work, at=given: stage.run(Job("n", settings, at, work)))
        )
    return made[0], made[1]


def test_latents_of_rows_that_share_an_image_are_those_of_that_image(
    tmp_path: Path, frozen: dict[str, Any]
) -> None:
    settings = {"llm": LLM, "latents": LatentsSettings(batch_size=3, max_active=32).model_dump()}
    readers = [
        LatentReader(artifact.store("latents.zarr"))
        for artifact in run_both(tmp_path, latents, settings, frozen)
    ]
    shared, apart = (reader.tokens(1, "image", slice(0, 8)) for reader in readers)
    assert readers[0].image_ids == [f"row{i}" for i in range(12) if i % 3]
    assert np.array_equal(shared.index, apart.index)
    assert np.array_equal(shared.value, apart.value)
    chosen = [path for i, path in enumerate(PATHS) if i % 3]
    for i in range(8):
        for j in range(8):
            same = np.array_equal(shared.value[i], shared.value[j])
            assert same == (chosen[i] == chosen[j])


def test_captions_of_rows_that_share_an_image_see_that_image(
    tmp_path: Path, frozen: dict[str, Any]
) -> None:
    own = CaptionSettings(max_new_tokens=3, batch_size=3).model_dump(mode="json")
    settings = {"llm": LLM, "caption": own}
    tables = [
        [pq.read_table(artifact.file(name)) for name in ("captions.parquet", "items.parquet")]
        for artifact in run_both(tmp_path, caption, settings, frozen)
    ]
    assert tables[0] == tables[1]
    assert len(set(tables[0][1]["loss_sum"].to_pylist())) > 2


def test_the_probe_reads_the_image_of_each_row(tmp_path: Path) -> None:
    records = images(tmp_path / "seen", shared=True)
    table = probe.read_records(records["records"].file("records.parquet"))
    reader = FeatureReader(records["features"].store("features.zarr"))
    features, classes, of_image = probe._patches(
        table, reader, probe.read_geometry(records["features"]), ProbeSettings(), "test", None
    )
    chosen = [DISTINCT.index(path) for i, path in enumerate(PATHS) if i % 3]
    # The object covers the upper two of the four patches.
    assert np.array_equal(features, reader.read(chosen)[:, :2].reshape(-1, D_VISION))
    assert of_image.tolist() == np.repeat(chosen, 2).tolist()
    assert classes.tolist() == [("cat", "dog")[i % 2] for i in np.repeat(chosen, 2)]


class Killed(Exception):
    """Stands for a kill in the middle of training."""


def test_the_second_stage_goes_on_from_the_first_whatever_interrupts_it(
    tmp_path: Path, frozen: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from vista.projector.module import load_projector

    first = frozen.pop("projector")
    inputs = {**frozen, **images(tmp_path, shared=True), "start": first}
    reads = []
    read = FeatureReader.read

    def train(node: str, *, rate: float, kill_at: int | None = None) -> Path:
        stage = TrainingStage(
            split="train", steps=6, batch_size=2, lr=rate, warmup=0, checkpoint_every=2
        )
        settings = {
            "llm": LLM,
            "training": stage.model_dump(mode="json"),
            "seed": 5,
            "sae_weight": 1.0,
            "projector": {"kind": "linear", "init_scale": 1.0},
        }

        def counted(self: FeatureReader, *args: Any, **options: Any) -> Any:
            reads.append(node)
            if kill_at is not None and reads.count(node) == kill_at:
                raise Killed
            return read(self, *args, **options)

        monkeypatch.setattr(FeatureReader, "read", counted)
        record = Provenance("train", settings, {}, "code", {})
        with publishing(tmp_path, "train", node, record) as work:
            assert work is not None
            train_projector.run(Job("n", settings, inputs, work))
        return tmp_path / "train" / node

    whole = train("whole", rate=1e-2)
    with pytest.raises(Killed):
        train("broken", rate=1e-2, kill_at=4)
    broken = train("broken", rate=1e-2)
    for name in ("projector.safetensors", "projector.json", "curve.parquet"):
        assert (whole / name).read_bytes() == (broken / name).read_bytes()
    # Killed in its fourth step, it goes on after the second: the checkpoint was used.
    assert (reads.count("whole"), reads.count("broken")) == (6, 8)

    still = train("still", rate=1e-9)
    found, given = (
        load_projector(path, d_vision=D_VISION, d_model=D_MODEL).layers[0].weight.detach().numpy()
        for path in (still, first.path)
    )
    assert np.abs(found - given).max() < 1e-6
    assert np.abs(given).max() > 1e-2
