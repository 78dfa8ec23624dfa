"""The published setting in small: repositories, releases, labels and data fetched from a hub on
disk, two stages of training, and then no network at all."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
import yaml
from fake_hub import FakeHub

from vista.engine.artifacts import open_artifact
from vista.engine.plan import Plan, load_plan

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
TOKEN = "hf_" + "secret" * 6


@dataclass
class Run:
    """A folder that the workflow ran in, its config, and the hub that it fetched from."""

    folder: Path
    config: Path
    hub: FakeHub

    @property
    def plan(self) -> Plan:
        return load_plan(self.config)

    def snakemake(
        self, *options: str, token: str | None = None, ok: bool = True
    ) -> subprocess.CompletedProcess[str]:
        # Other tests run stages in this process, which forbids the network to what comes after.
        unwanted = ("HF_TOKEN", "HF_HUB_OFFLINE")
        environment = {name: value for name, value in os.environ.items() if name not in unwanted}
        environment |= self.hub.env | ({"HF_TOKEN": token} if token else {})
        environment |= {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HF_HOME": str(self.folder / "hf_home"),
        }
        command = [
            sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"),
            "--cores", "2", "--directory", str(self.folder), f"--configfile={self.config}",
            *options,
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        assert (done.returncode == 0) == ok, done.stdout[-2000:] + done.stderr[-8000:]
        return done


def config(hub: FakeHub, folder: Path) -> dict[str, Any]:
    """The config: paper.yaml's shape, with everything small."""

    def fetched(*names: str) -> list[dict[str, str]]:
        return [{"url": f"{hub.url}/files/{name}"} for name in names]

    def model(repo: str, **more: str) -> dict[str, Any]:
        found = {"kind": "checkpoint", "repo": repo, "revision": hub.commit(repo)}
        return {"source": {**found, **more}}

    whole = {"train": 1, "validation": 0, "test": 0}
    llava = {"kind": "llava", "images": "images", "fractions": whole}
    annotations = {name: f"annotations/{name}_test.json" for name in ("instances", "captions")}
    llms = {}
    for family, layers in (("gemma2", [0, 1]), ("llama31", [1])):
        llms[family] = {
            "model": model(f"llms/{family}"),
            "saes": {
                "layers": layers,
                "pretrained": {
                    "release": f"saes/{family}",
                    "sae_id": "layer_{layer}",
                    "revision": hub.commit(f"saes/{family}"),
                },
                "labels": {"model": family, "source": "{layer}-test-res"},
            },
        }
    return {
        "name": "published",
        "data": {
            "kind": "coco",
            "fetch": fetched("images.zip", "annotations.zip"),
            "images": "images",
            "files": annotations,
            "fractions": {"train": 0, "validation": 0, "test": 1},
        },
        "training": {
            "pretrain": {**llava, "fetch": fetched("pretrain.json", "images.zip"),
                         "file": "pretrain.json", "every": 2},
            "mix": {**llava, "fetch": fetched("mix.json", "images.zip"),
                    "file": "mix.json", "missing_images": "skip"},
        },
        "text": {"kind": "captions"},
        "encoders": {
            "clip": model("encoders/clip", family="clip"),
            "registers": model("encoders/dinov2_registers", family="dinov2"),
        },
        "llms": llms,
        "sweep": [
            {"encoders": ["clip"], "llms": ["gemma2"], "sae_weights": [0, 1], "seeds": [0]},
            {"encoders": ["registers"], "llms": ["llama31"], "sae_weights": [1], "seeds": [0]},
            {"encoders": ["clip"], "llms": ["gemma2"], "sae_weights": [1], "seeds": [7],
             "projector": {"pretrained": str(folder / "theirs.pth")}},
        ],
        "projector": {
            "stages": [
                {"data": "pretrain", "batch_size": 6, "micro_batch": 3, "max_length": 256},
                {"data": "mix", "epochs": 2, "batch_size": 6, "lr": 2.0e-5, "warmup": 0},
            ],
        },
        "check_sae": {"tokens": 200, "max_fvu": None, "min_l0": None, "max_l0": None,
                      "max_dead_share": None},
        "metrics": {
            "reconstruction": {},
            "matching_rate": {"mask": {"max_image_share": 1.0}},
            "localization": {"mask": {"max_image_share": 1.0}},
            "caption": {"max_new_tokens": 4},
        },
        "report": {"heatmap_examples": 1, "dpi": 50},
    }  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """The hub, running, with a licence on the language models; and a first run to the end."""
    sys.path.insert(0, str(HERE))
    from hub_on_disk import build

    root, folder = tmp_path_factory.mktemp("hub"), tmp_path_factory.mktemp("published")
    build(root)
    torch.manual_seed(0)
    layers = (torch.nn.Linear(32, 32), torch.nn.GELU(), torch.nn.Linear(32, 32))
    foreign = {
        f"module.mm_projector.{name}": value
        for name, value in torch.nn.Sequential(*layers).state_dict().items()
    }
    torch.save(foreign, folder / "theirs.pth")
    hub = FakeHub(root, gated={"llms/gemma2", "llms/llama31"})
    hub.tokens = {TOKEN: hub.gated}
    with hub:
        path = folder / "published.yaml"
        path.write_text(yaml.safe_dump(config(hub, folder)))
        yield Run(folder, path, hub)


def test_without_a_token_a_licence_is_named_and_nothing_is_lost(run: Run) -> None:
    done = run.snakemake("--until", "fetch_model", "--keep-going", ok=False)
    said = done.stdout + done.stderr
    assert "huggingface.co/llms/gemma2" in said or f"{run.hub.url}/llms/gemma2" in said
    assert "HF_TOKEN" in said
    assert "Traceback" not in said
    finished = {path.parent.name.split("-")[0] for path in found(run, "fetch_model")}
    assert finished == {"clip", "registers"}


def test_the_whole_published_setting_runs_in_small(run: Run) -> None:
    run.snakemake(token=TOKEN)
    for manifest in run.plan.manifests():
        open_artifact((run.folder / manifest).parent).verify()
    rows = pq.read_table(run.folder / "results" / "summary.parquet").to_pylist()
    # A mean over seeds stands at no seed.
    points = {
        (r["encoder"], r["llm"], r["sae_weight"], r["seed"])
        for r in rows
        if r["encoder"] and r["seed"] is not None
    }
    assert points == {point[:4] for point in run.plan.config.points()}
    measured = {row["metric"] for row in rows if row["n"] > 0}
    assert {"sae_text_fvu", "mse", "l0", "matching_rate", "caption_cross_entropy"} <= measured


def found(run: Run, stage: str) -> list[Path]:
    return sorted((run.folder / "results" / stage).glob("*/manifest.json"))


def test_the_token_is_written_nowhere(run: Run) -> None:
    for path in run.folder.rglob("*"):
        if path.is_file():
            assert TOKEN.encode() not in path.read_bytes(), path


def test_only_what_is_needed_is_fetched_at_the_pinned_commit(run: Run) -> None:
    assert run.hub.asked("pytorch_model.bin") == 0
    for manifest in found(run, "fetch_model"):
        source = json.loads((manifest.parent / "source.json").read_text())
        assert source["commit"] == run.hub.commit(source["repo"])
        assert not list(manifest.parent.rglob("*.bin"))


def test_the_second_stage_of_training_starts_from_the_first(run: Run) -> None:
    stages = [node for node in run.plan.nodes.values() if node.stage == "train_projector"]
    second = [node for node in stages if "start" in node.inputs]
    assert len(second) == 3
    for node in second:
        from safetensors.torch import load_file

        start = node.inputs["start"]
        before, after = (
            load_file(run.folder / "results" / each.path / "projector.safetensors")
            for each in (start, node)
        )
        change = (after["layers.0.weight"] - before["layers.0.weight"]).norm()
        # A rate of 2e-5 over four steps cannot have moved a fresh projector here.
        assert 0 < change < 0.01 * before["layers.0.weight"].norm()


def test_rows_without_an_image_are_counted_and_one_image_is_encoded_once(run: Run) -> None:
    records = next(
        run.folder / "results" / node.path
        for node in run.plan.nodes.values()
        if node.stage == "records" and str(node.settings.get("file")) == "mix.json"
    )
    table = pq.read_table(records / "records.parquet").to_pylist()
    skipped = pq.read_table(records / "skipped.parquet").to_pylist()
    assert "gone" in {row["id"] for row in skipped}
    assert len({row["path"] for row in table}) == len(table) - 1
    import zarr

    store = next((run.folder / "results" / "features").glob("clip-mix-*/features.zarr"))
    array = next(array for _, array in zarr.open_group(store, mode="r").arrays() if array.ndim == 3)
    assert array.shape[0] == len(table) - 1


def test_labels_of_strangers_are_text_and_one_latent_has_none(run: Run) -> None:
    path = next((run.folder / "results" / "import_labels").glob("gemma2-l0-*/labels.parquet"))
    labels = pq.read_table(path)["label"].to_pylist()
    assert labels[2] is None
    assert labels[1] == "<script>alert(1)</script>"
    assert "<script>" not in (run.folder / "results" / "summary.md").read_text()


def test_afterwards_nothing_needs_the_network(run: Run) -> None:
    asked = len(run.hub.requests)
    for stage in ("latents", "caption", "import_sae"):
        for manifest in found(run, stage):
            (manifest.parent / "memo.json").unlink()
            manifest.unlink()
    run.snakemake()
    assert len(run.hub.requests) == asked
    assert "Nothing to be done" in run.snakemake("--dry-run").stdout


def test_the_published_pre_processing_runs_when_it_is_asked_for(run: Run) -> None:
    content = yaml.safe_load(run.config.read_text())
    content |= {"name": "faithful", "paper_faithful": True, "metrics": {"reconstruction": {}}}
    content["data"]["fractions"] = {"train": 0.5, "validation": 0, "test": 0.5}
    content["sweep"] = [content["sweep"][0] | {"sae_weights": [1]}]
    run.config.with_name("faithful.yaml").write_text(yaml.safe_dump(content))
    other = Run(run.folder, run.config.with_name("faithful.yaml"), run.hub)
    other.snakemake("--until", "latents")
    crop = next((run.folder / "results" / "features").glob("clip-crop-*/geometry.json"))
    assert json.loads(crop.read_text())["fit"] == "crop"


def test_every_family_is_on_the_hub_and_encodes_images(run: Run) -> None:
    content = yaml.safe_load(run.config.read_text())
    families = {"siglip": "siglip", "siglip2_naflex": "siglip2", "ijepa": "ijepa",
                "dinov3": "dinov3", "vit": "vit"}  # fmt: skip
    for name, family in families.items():
        repo = f"encoders/{name}"
        source = {"kind": "checkpoint", "family": family, "repo": repo}
        content["encoders"][name] = {"source": source | {"revision": run.hub.commit(repo)}}
    # Their own projectors would take minutes; a sweep of nothing new still plans their features.
    content |= {"name": "families", "metrics": {"probe": {"split": "test"}}}
    run.config.with_name("families.yaml").write_text(yaml.safe_dump(content))
    other = Run(run.folder, run.config.with_name("families.yaml"), run.hub)
    other.snakemake("--until", "features")
    stores = {path.parent.name.split("-")[0] for path in found(run, "features")}
    assert set(families) <= stores
