"""Every shipped config is planned by the real Snakefile, without one of its files being there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image
from workflow_run import ROOT, snakemake

from vista.engine.plan import load_plan


@pytest.mark.parametrize("config", sorted(ROOT.glob("config/*.yaml")), ids=lambda path: path.stem)
def test_a_dry_run_lists_every_job(config: Path, tmp_path: Path) -> None:
    text = config.read_text()
    # A file of the system or the user's that jobs read, which other machines may not have.
    for name in {name for node in load_plan(config).nodes.values() for name in node.files}:
        own = tmp_path / "files" / Path(name).name
        own.parent.mkdir(exist_ok=True)
        own.touch()
        text = text.replace(name, str(own)).replace(str(Path(name).parent), str(own.parent))
    planned = tmp_path / config.name
    planned.write_text(text)
    done = snakemake(tmp_path, "--dry-run", "--quiet", "rules", config=planned)
    stats = done.stdout.split("Job stats:")[1].split()
    total = int(stats[stats.index("total") + 1])
    # The default target and the summary are rules of their own.
    assert total == len(load_plan(planned).nodes) + 2


def test_a_users_file_names_may_hold_braces(tmp_path: Path) -> None:
    """Snakemake would take {v1} for a wildcard."""
    images = tmp_path / "photos {x}"
    images.mkdir()
    splits = {}
    for i, split in enumerate(("train", "test")):
        Image.new("RGB", (8, 8)).save(images / f"{split} {{b}}.png")
        instances = {
            "images": [{"id": i, "file_name": f"{split} {{b}}.png", "width": 8, "height": 8}],
            "categories": [{"id": 1, "name": "cat"}],
            "annotations": [{"id": 1, "image_id": i, "category_id": 1, "bbox": [0, 0, 4, 4]}],
        }
        path = tmp_path / f"inst {{{split}}}.json"
        path.write_text(json.dumps(instances))
        splits[split] = {"instances": str(path)}
    encoder = {"source": {"kind": "checkpoint", "family": "clip", "path": "x"}}
    content = {
        "name": "braces",
        "data": {"kind": "coco", "images": str(images), "splits": splits},
        "encoders": {"own": encoder},
        "metrics": {"probe": {}},
    }
    config = tmp_path / "mine {y}.yaml"
    config.write_text(json.dumps(content))
    plan = load_plan(config)
    (records,) = (node for node in plan.nodes.values() if node.stage == "records")
    snakemake(tmp_path, f"results/{records.path}/manifest.json", config=config)
    # Once made, it is not made again: the link to the file is no newer file.
    done = snakemake(tmp_path, f"results/{records.path}/manifest.json", config=config)
    assert "Nothing to be done" in done.stdout + done.stderr


def test_the_published_configs_share_data_encoders_and_features() -> None:
    shared = ("fetch_data", "records", "features")
    found = {
        name: {key for key in load_plan(ROOT / f"config/{name}.yaml").nodes if key[0] in shared}
        for name in ("paper", "paper-gemma9b", "paper-llama8b")
    }
    assert len(found["paper"]) == 15
    assert all(each == found["paper"] for each in found.values())


def test_published_interventions_train_nothing_anew_but_vision_saes() -> None:
    paper, edits = (
        set(load_plan(ROOT / f"config/{name}.yaml").nodes)
        for name in ("paper", "paper-interventions")
    )
    made = {stage for stage, _ in edits - paper}
    assert "train_vision_sae" in made
    assert not made & {"fetch_model", "fetch_sae", "fetch_data", "train_projector", "import_sae"}
