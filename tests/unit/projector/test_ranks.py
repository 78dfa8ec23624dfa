"""Training in several processes: the curve of one process, and no process that dies unnoticed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file
from transformers import LlamaConfig, LlamaForCausalLM
from word_tokenizer import word_tokenizer

from vista.config.data import FolderData
from vista.config.language import CheckpointLlm, LanguageSettings
from vista.config.projector import TrainingStage
from vista.data.records import Record, Turn, write_records
from vista.engine import processes
from vista.engine.artifacts import Artifact, Provenance, open_artifact, publishing
from vista.engine.job import Job
from vista.engine.plan import load_plan
from vista.errors import UserError
from vista.projector.ranks import share
from vista.sae.neutral import SaeConfig, SparseAutoencoder, save_sae
from vista.stages import train_projector
from vista.store.features import FeatureReader, FeatureWriter

WORDS = ["<pad>", "<bos>", "<eos>", "<unk>", "what", "?", "cat", "dog", "on", "sand"]
ANSWERS = ["cat", "dog on sand", "cat on sand on sand on sand on sand"]
D_MODEL, D_VISION, IMAGES, STEPS = 16, 12, 25, 12
# Five images a step: one rank has three in parts of two and one, the other a part of two.
STAGE = TrainingStage(
    steps=STEPS, batch_size=5, micro_batch=2, lr=1e-3, warmup=0, clip=0.5, checkpoint_every=3
)

# Found by Python when it starts: the second rank kills itself in its n-th step.
DYING = """
import os, signal
if os.environ.get("RANK") == "1":
    from vista.store.features import FeatureReader
    read, reads = FeatureReader.read, []
    def dying(self, *args):
        reads.append(1)
        if len(reads) == 8:
            os.kill(os.getpid(), signal.SIGKILL)
        return read(self, *args)
    FeatureReader.read = dying
"""
# Slurm's srun for two machines, both of them this one.
SRUN = """#!/bin/sh
case "$*" in *--nodes=2*--ntasks=2*--ntasks-per-node=1*) ;; *) exit 9 ;; esac
while case "$1" in --*) true ;; *) false ;; esac; do shift; done
"$@" & first=$!
"$@" || { kill $first; exit 1; }
wait $first
"""

# A stage that takes its time.
WAITING = """
import sys, time, types
from vista.engine import processes
stage = types.ModuleType("waiting")
stage.run = lambda job: time.sleep(60)
sys.modules["vista.stages.waiting"] = stage
processes.main()
"""


def publish(root: Path, stage: str, write: Callable[[Path], object]) -> Artifact:
    with publishing(root, stage, "one", Provenance(stage, {}, {}, {}, {})) as work:
        assert work is not None
        write(work)
    return open_artifact(root / stage / "one")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    root = tmp_path_factory.mktemp("inputs")
    generator = torch.Generator().manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(WORDS),
        hidden_size=D_MODEL,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
    )

    def write_llm(work: Path) -> None:
        model = LlamaForCausalLM(config)
        with torch.no_grad():
            for weight in model.parameters():
                weight.copy_(0.4 * torch.randn(weight.shape, generator=generator))
        model.save_pretrained(work / "model")
        word_tokenizer(WORDS).save_pretrained(work / "model")

    def write_one_sae(work: Path) -> None:
        shape = SaeConfig("standard", D_MODEL, 32, 1, "test-l1")
        weights = {
            name: 0.3 * torch.randn(size, generator=generator)
            for name, size in shape.weight_shapes().items()
        }
        save_sae(work, SparseAutoencoder(shape, weights))

    def write_features(work: Path) -> None:
        ids = [f"image{i}" for i in range(IMAGES)]
        writer = FeatureWriter(work / "features.zarr", ids, (2, 2), D_VISION)
        writer.write_shard(0, np.random.default_rng(0).normal(size=(IMAGES, 4, D_VISION)))
        writer.close()

    records = [
        Record(f"r{i}", "train", f"{i}.png", 8, 8, turns=(Turn("what ?", ANSWERS[i % 3]),))
        for i in range(IMAGES)
    ]
    return {
        "llm": publish(root, "train_llm", write_llm),
        "saes": [publish(root, "import_sae", write_one_sae)],
        "features": publish(root, "features", write_features),
        "records": publish(
            root, "records", lambda work: write_records(work / "records.parquet", records)
        ),
    }


def train(root: Path, inputs: dict[str, Any], **options: int) -> tuple[Any, Any]:
    """Return the curve and the weights of a training stage."""
    llm = LanguageSettings(source=CheckpointLlm(kind="checkpoint", path="unused")).model_dump(
        mode="json"
    )
    settings = {
        "llm": llm,
        "training": {**STAGE.model_dump(mode="json"), **options},
        "projector": {"kind": "linear", "init_scale": 1.0},
        "sae_weight": 0.5,
        "seed": 5,
    }
    with publishing(root, "train_projector", "one", Provenance("", {}, {}, {}, {})) as work:
        assert work is not None
        train_projector.run(Job("train_projector", settings, inputs, work))
    made = open_artifact(root / "train_projector" / "one")
    assert set(made.checksums) == {"projector.safetensors", "projector.json", "curve.parquet"}
    curve = pq.read_table(made.file("curve.parquet")).to_pydict()
    return curve, load_file(made.file("projector.safetensors"))


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, inputs: dict[str, Any]) -> tuple[Any, Any]:
    return train(tmp_path_factory.mktemp("alone"), inputs)


def assert_same(found: tuple[Any, Any], alone: tuple[Any, Any]) -> None:
    assert set(found[0]) == set(alone[0])
    for name, values in alone[0].items():
        assert found[0][name] == pytest.approx(values, rel=1e-5), name
    for name, weight in alone[1].items():
        torch.testing.assert_close(found[1][name], weight, rtol=1e-5, atol=1e-6)


def test_two_machines_give_the_curve_of_one_process(
    tmp_path: Path,
    inputs: dict[str, Any],
    alone: tuple[Any, Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    srun = tmp_path / "bin" / "srun"
    srun.parent.mkdir()
    srun.write_text(SRUN)
    srun.chmod(0o755)
    monkeypatch.setenv("PATH", f"{srun.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setattr(processes.socket, "gethostname", lambda: "localhost")
    assert_same(train(tmp_path, inputs, machines=2), alone)
    # One of them reports progress, into the log of the job.
    assert capsys.readouterr().err.count(f"projector: {STEPS}/{STEPS}") == 1


def test_a_process_that_dies_ends_the_job_and_one_process_goes_on_from_its_checkpoint(
    tmp_path: Path,
    inputs: dict[str, Any],
    alone: tuple[Any, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "sitecustomize.py").write_text(DYING)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(UserError, match="one of the processes of the job died"):
        train(tmp_path, inputs, processes=2)
    assert not (tmp_path / "train_projector").exists()
    reads = []
    read = FeatureReader.read

    def counted(self: FeatureReader, *args: Any) -> Any:
        reads.append(1)
        return read(self, *args)

    monkeypatch.setattr(FeatureReader, "read", counted)
    assert_same(train(tmp_path, inputs), alone)
    # Dead in its eighth step, it had a checkpoint after the sixth; three parts a step.
    assert len(reads) == 3 * (STEPS - 6)


def test_what_a_process_tells_the_user_is_what_the_job_tells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A process of a light stage, in torchrun's stead.
    monkeypatch.setattr(processes, "_launcher", lambda *_: ["env", "RANK=1", sys.executable])
    settings = FolderData(kind="folder", images="nowhere").model_dump(mode="json")
    with pytest.raises(UserError, match="nowhere"):
        processes.run_ranks(Job("records", settings, {}, tmp_path), 2, 1)
    # What it said lies where nothing is published from.
    assert "errors" not in {path.name for path in tmp_path.iterdir()}


def test_a_process_does_not_outlive_the_job() -> None:
    """The standard input of a process ends when its job is killed."""
    order = {"stage": "waiting", "settings": {}, "inputs": {}, "work": "", "threads": 1}
    running = subprocess.Popen(
        [sys.executable, "-c", WAITING, json.dumps({**order, "watch": True})],
        stdin=subprocess.PIPE,
    )
    assert running.stdin is not None
    running.stdin.close()
    assert running.wait(30) == 1


def test_slices_of_a_batch_follow_one_another_and_none_is_empty() -> None:
    batch = np.array([7, 3, 5, 1, 8])
    ranks: list[Any] = [SimpleNamespace(num_processes=3, process_index=i) for i in range(3)]
    slices = [share(batch, rank) for rank in ranks]
    assert all(map(len, slices))
    assert np.array_equal(np.concatenate(slices), batch)
    with pytest.raises(UserError, match="a batch of 2 images cannot be shared by 3 processes"):
        share(batch[:2], ranks[0])


@pytest.mark.parametrize("placed", [{"device_map": "auto"}, {"device": "cuda:1"}])
def test_processes_that_cannot_hold_a_model_each_are_refused(placed: dict[str, str]) -> None:
    llm = LanguageSettings.model_validate(
        {"source": {"kind": "checkpoint", "path": "p"}, **placed}
    ).model_dump(mode="json")
    training = STAGE.model_dump(mode="json") | {"processes": 2}
    settings = {"llm": llm, "training": training, "sae_weight": 0.5, "seed": 5}
    unread = Artifact(Path("unused"), {}, {})
    inputs: dict[str, Any] = {"features": unread, "records": unread}
    job = Job("train_projector", settings, inputs, Path("unused"))
    with pytest.raises(UserError, match=f"its `{next(iter(placed))}: .*says otherwise"):
        train_projector.run(job)


def test_several_machines_need_a_slurm_job(
    tmp_path: Path, inputs: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    with pytest.raises(UserError, match="machines: 2 needs a Slurm job"):
        train(tmp_path, inputs, machines=2)


def test_the_number_of_processes_is_no_part_of_an_id_and_each_has_a_gpu() -> None:
    config = Path(__file__).parents[3] / "config" / "paper.yaml"
    import yaml

    content = yaml.safe_load(config.read_text())
    before = load_plan(content)
    for stage in content["projector"]["stages"]:
        stage |= {"processes": 4, "machines": 2}
    after = load_plan(content)
    assert set(after.nodes) == set(before.nodes)
    for key in after.nodes:
        trains = key[0] == "train_projector"
        assert after.nodes[key].gpus == (8 if trains else 1) * before.nodes[key].gpus
        assert after.nodes[key].machines == (2 if trains else 1)
