"""Nothing is run in vain: the exact jobs of a dry run after each kind of change.

The finished run is one whose artifacts were published with idle content and recorded as done by
Snakemake itself (--touch). What a run really leaves is test_smoke.py's to check.
"""

from __future__ import annotations

import copy
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from finished_plan import publish_all
from workflow_run import ROOT, SMOKE, jobs, snakemake

from vista.engine.plan import load_plan

POINTS = ("train_projector", "latents", "reconstruction", "matching_rate", "localization")
SAE = ("train_sae", "import_sae", "check_sae", "label_latents", "naming")


def once(*stages: str, n: int = 1) -> dict[str, int]:
    return dict.fromkeys(stages, n)


@pytest.fixture(scope="module")
def content() -> dict[str, Any]:
    """The smoke config with room to add: a block without SAEs, and metrics that are not asked; it
    has no controls."""
    found: dict[str, Any] = yaml.safe_load(SMOKE.read_text())
    found["sweep"] = found["sweep"][:1]
    found["llms"]["gemma2"]["model"]["source"]["n_blocks"] = 3
    asked = ("probe", "naming", "reconstruction", "matching_rate", "localization")
    found["metrics"] = {name: found["metrics"][name] for name in asked}
    return found


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, content: dict[str, Any]) -> Path:
    folder = tmp_path_factory.mktemp("reruns")
    finish(folder, content, "--forceall")
    return folder


def finish(folder: Path, content: dict[str, Any], *which: str) -> None:
    """Leave in a folder what a run of a config leaves; `which` says the jobs that it ran."""
    plan = load_plan(content)
    publish_all(plan, folder / "results")
    for kind in ("csv", "parquet", "md"):
        (folder / "results" / f"summary.{kind}").touch()
    snakemake(folder, "--touch", *which, config=written(folder, content))


def written(folder: Path, content: dict[str, Any]) -> Path:
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def planned(run: Path, config: Path, checkout: Path = ROOT) -> dict[str, int]:
    return jobs(snakemake(run, "--dry-run", config=config, checkout=checkout))


def weight_of_one_point(content: dict[str, Any]) -> None:
    block = {"seeds": [0], "controls": {"text_scale": None}}
    content["sweep"] = [
        {**block, "encoders": ["dinov2"], "sae_weights": [0, 3]},
        {**block, "encoders": ["siglip"], "sae_weights": [0, 1]},
    ]


def another_seed(content: dict[str, Any]) -> None:
    content["sweep"][0]["seeds"] = [0, 1]


def another_encoder(content: dict[str, Any]) -> None:
    content["encoders"]["clip"] = {"source": {"kind": "standin", "family": "clip", "steps": 10}}


def another_metric(content: dict[str, Any]) -> None:
    content["metrics"]["caption"] = {"max_new_tokens": 8}


def another_layer(content: dict[str, Any]) -> None:
    content["llms"]["gemma2"]["saes"]["layers"] = [0, 1, 2]


def another_name(content: dict[str, Any]) -> None:
    content["name"] = "shared"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (weight_of_one_point, once(*POINTS)),
        (another_seed, once(*POINTS, n=4)),
        (another_encoder, once("train_encoder", "features", "probe") | once(*POINTS, n=2)),
        (another_metric, {"caption": 4}),
        # Without the SAE term a projector depends on no SAE: two of the four stay.
        (another_layer, once(*SAE) | once(*POINTS, n=4) | {"train_projector": 2}),
        # A second config of the same settings shares everything but its report.
        (another_name, {}),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_change_of_the_config_runs_only_the_new_work(
    run: Path,
    content: dict[str, Any],
    tmp_path: Path,
    change: Callable[[dict[str, Any]], None],
    expected: dict[str, int],
) -> None:
    changed = copy.deepcopy(content)
    change(changed)
    assert planned(run, written(tmp_path, changed)) == {**expected, "report": 1}


def test_a_knob_turned_back_runs_nothing(
    run: Path, content: dict[str, Any], tmp_path: Path
) -> None:
    moved = tmp_path / "run"
    shutil.copytree(run, moved)
    turned = copy.deepcopy(content)
    turned["metrics"]["probe"]["max_patches"] = 300
    finish(moved, turned, "--forcerun", "probe")
    assert planned(moved, written(tmp_path, turned)) == {}
    assert planned(moved, run / "config.yaml") == {}


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of what the workflow runs, in another folder."""
    place = tmp_path / "checkout"
    for name in ("vista", "workflow"):
        shutil.copytree(ROOT / name, place / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "Snakefile", place)
    return place


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("metrics/reconstruction/measure.py", once("reconstruction", n=4)),
        # The family's own artifacts and what follows from them; the other encoder's stay.
        (
            "encoders/families/dinov2.py",
            once("train_encoder", "features", "probe") | once(*POINTS, n=2),
        ),
    ],
)
def test_an_edit_runs_what_uses_the_source_and_what_follows(
    run: Path, checkout: Path, source: str, expected: dict[str, int]
) -> None:
    path = checkout / "vista" / source
    # A definition that nobody uses is no code of a stage, but in a module that is loaded by name.
    edited = path.read_text().replace("    return ", "    pass\n    return ")
    path.write_text(f"{edited}\nEDITED = 1\n")
    assert planned(run, run / "config.yaml", checkout) == {**expected, "report": 1}


def test_comments_docstrings_and_another_place_run_nothing(
    run: Path, checkout: Path, tmp_path: Path
) -> None:
    for path in (checkout / "vista").rglob("*.py"):
        path.write_text(f"# A comment.\n\n{path.read_text()}")
    metric = checkout / "vista" / "metrics" / "reconstruction" / "measure.py"
    text = metric.read_text()
    assert text.count('"""') > 1
    metric.write_text(text.replace('"""', '"""In other words: ', 1))
    moved = tmp_path / "moved"
    shutil.copytree(run, moved)
    assert planned(moved, run / "config.yaml", checkout) == {}


def test_a_deleted_metric_result_is_noticed_and_made_again_alone(run: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(run, moved)
    shutil.rmtree(next((moved / "results" / "reconstruction").iterdir()))
    assert planned(moved, run / "config.yaml") == {"reconstruction": 1, "report": 1}


def accept(folder: Path, checkout: Path, config: Path, *options: str) -> str:
    """Run `vista accept` of a checkout in the folder of a run."""
    done = subprocess.run(
        [sys.executable, "-m", "vista.cli", "accept", str(config), *options],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(checkout)},
        cwd=folder,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_after_a_neutral_edit_accepted_artifacts_are_not_made_again(
    content: dict[str, Any], checkout: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    content = copy.deepcopy(content)
    # Snakemake's record of features that were made in parts names marks that are there no more.
    content["encoders"]["dinov2"]["jobs"] = 2
    finish(folder, content, "--forceall")
    config = folder / "config.yaml"
    assert "Nothing to be done" in snakemake(folder, "--dry-run", config=config).stdout
    family = checkout / "vista" / "encoders" / "families" / "dinov2.py"
    with family.open("a") as file:
        file.write("\nEDITED = 1\n")
    wanted = planned(folder, config, checkout)
    assert {"train_encoder", "features", "latents", "report"} <= wanted.keys()

    listed = accept(folder, checkout, config)
    named = "source vista.encoders.families.dinov2:EDITED is new"
    assert listed.count(named) == 2
    assert "2 artifacts in results whose code alone has changed, listed only" in listed
    assert planned(folder, config, checkout) == wanted

    # Of a point whose setting is another, nothing is accepted and all is made.
    other = copy.deepcopy(content)
    other["encoders"]["dinov2"]["source"]["steps"] += 1
    changed = written(tmp_path, other)
    anew = planned(folder, changed, checkout)
    assert "nothing to accept" in accept(folder, checkout, changed, "--yes")
    assert planned(folder, changed, checkout) == anew
    assert planned(folder, config, checkout) == wanted

    assert accept(folder, checkout, config, "--yes").count(named) == 2
    after = snakemake(folder, "--dry-run", config=config, checkout=checkout)
    assert "Nothing to be done" in after.stdout, after.stdout
    assert planned(folder, changed, checkout) == anew
    # An edit that is not accepted is noticed as before.
    with family.open("a") as file:
        file.write("\nEDITED_AGAIN = 1\n")
    assert planned(folder, config, checkout) == wanted
