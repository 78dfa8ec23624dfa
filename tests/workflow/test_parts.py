"""Features in several jobs, through the real workflow: the same bytes, and no job afterwards."""

from __future__ import annotations

import filecmp
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from workflow_run import jobs, snakemake

# Three shards of 256.
IMAGES = 600


def config(folder: Path, n_jobs: int) -> Path:
    """Return a config with a small encoder that is on the disk, of which only features are made."""
    source = {"kind": "checkpoint", "family": "vit", "path": str(folder / "encoder")}
    llm = {"kind": "checkpoint", "path": str(folder / "llm")}
    saes = {"layers": [0], "train": {"steps": 1}}
    content: dict[str, Any] = {
        "name": "parts",
        "data": {"kind": "folder", "images": str(folder / "photos")},
        "text": {"kind": "captions"},
        "encoders": {"vit": {"source": source, "jobs": n_jobs}},
        "llms": {"llm": {"model": {"source": llm}, "saes": saes}},
        "sweep": [{"sae_weights": [0], "seeds": [0]}],
        "metrics": {"reconstruction": {}},
    }
    path = folder / f"jobs{n_jobs}.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import ViTConfig, ViTModel

    folder = tmp_path_factory.mktemp("parts")
    rng = np.random.default_rng(0)
    (folder / "photos").mkdir()
    for i in range(IMAGES):
        pixels = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "photos" / f"{i}.png")
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    sizes = {"intermediate_size": 32, "image_size": 16, "patch_size": 8}
    ViTModel(ViTConfig(**shape, **sizes)).save_pretrained(folder / "encoder")
    preprocessor = {
        "image_processor_type": "ViTImageProcessor",
        "size": {"height": 16, "width": 16},
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
    }
    (folder / "encoder" / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    return folder


def test_features_in_three_jobs_are_those_of_one_and_stay_when_the_number_changes(
    folder: Path,
) -> None:
    one, three, two = (config(folder, n) for n in (1, 3, 2))
    until = ("--until", "features")
    alone, shared = folder / "alone", folder / "shared"
    for each in (alone, shared):
        each.mkdir()
    assert jobs(snakemake(alone, *until, config=one)) == {"records": 1, "features": 1}
    done = jobs(snakemake(shared, *until, config=three))
    assert done == {"records": 1, "features_part": 3, "features": 1}
    logs = [path.read_text() for path in (shared / "results/logs/features").glob("*.*of3.log")]
    assert sum("features: 256 images" in text for text in logs) == 2
    assert sum("features: 88 images" in text for text in logs) == 1

    made, again = (next(each.glob("results/features/*")) for each in (alone, shared))
    assert made.name == again.name
    files = sorted(p.relative_to(made) for p in made.rglob("*") if p.is_file())
    assert files == sorted(p.relative_to(again) for p in again.rglob("*") if p.is_file())
    names = list(map(str, files))
    assert filecmp.cmpfiles(made, again, names, shallow=False) == (names, [], [])
    for each, other in ((alone, three), (shared, one), (shared, two)):
        assert jobs(snakemake(each, "--dry-run", *until, config=other)) == {}
    # Features that are lost are made again, in as many jobs as before.
    shutil.rmtree(again)
    lost = jobs(snakemake(shared, "--dry-run", *until, config=one))
    assert lost == {"features_part": 3, "features": 1}
