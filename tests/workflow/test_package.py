"""Wheel and sdist hold what a user needs; the workflow is a module of other workflows."""

from __future__ import annotations

import json
import zipfile
from collections import Counter
from pathlib import Path

import pytest
import yaml
from installed_package import UNTRACKED, InstalledPackage
from workflow_run import ROOT, SMOKE, jobs, snakemake

from vista.cli import main
from vista.engine.plan import load_plan

SPLITS = ("train", "validation", "test")
DIGESTS = """
import json, sys
from pathlib import Path
import vista
from vista.engine.plan import load_plan
from vista.engine.shipped import config_names, shipped
plans = [load_plan(shipped() / "config" / f"{name}.yaml") for name in ("default", "probing")]
codes = {node.path: plan.code(node.folder) for plan in plans for node in plan.nodes.values()}
print(json.dumps([vista.__file__, sys.path, str(shipped()), config_names(), codes]))
"""
# Another workflow: rules of its own, and this one under other names and in another folder.
OTHER = """
module vista:
    snakefile: {snakefile!r}
    config: config
    prefix: "readout"

use rule * from vista as vista_*

rule own:
    default_target: True
    input: rules.vista_all.input
    output: "own.txt"
    shell: "touch {{output}}"
"""


def files(folder: Path) -> set[str]:
    """The files below a folder of the checkout, relative to the checkout."""
    names = [path.name for path in folder.iterdir()]
    ignored = UNTRACKED(str(folder), names)
    found: set[str] = set()
    for path in folder.iterdir():
        if path.name not in ignored:
            found |= files(path) if path.is_dir() else {path.relative_to(ROOT).as_posix()}
    return found


def test_the_sdist_is_the_checkout(package: InstalledPackage) -> None:
    there = {path.relative_to(package.sources).as_posix() for path in package.sources.rglob("*")}
    folders = (".ci", "benchmarks", "config", "docs", "tests", "vista", "workflow")
    assert {name for folder in folders for name in files(ROOT / folder)} <= there
    assert {"Makefile", "Snakefile", "constraints.txt", ".snakemake-workflow-catalog.yml"} <= there


def test_the_wheel_brings_workflow_configs_and_page(package: InstalledPackage) -> None:
    names = set(zipfile.ZipFile(package.wheel).namelist())
    shipped = files(ROOT / "workflow") | files(ROOT / "config")
    code = {name for name in files(ROOT / "vista") if "/page_src/" not in name}
    expected = {f"vista/shipped/{name}" for name in shipped} | code
    assert {name for name in names if name.startswith("vista/")} == expected


def test_an_installed_package_has_the_ids_and_digests_of_its_checkout(
    package: InstalledPackage, tmp_path: Path
) -> None:
    place, path, shipped, names, codes = json.loads(package.run(tmp_path, "python", "-c", DIGESTS))
    assert Path(place).is_relative_to(package.programs.parent)
    assert Path(shipped).is_relative_to(package.programs.parent)
    assert str(ROOT) not in path
    assert names == sorted(file.stem for file in (ROOT / "config").glob("*.yaml"))
    plans = [load_plan(ROOT / "config" / f"{name}.yaml") for name in ("default", "probing")]
    assert codes == {
        node.path: plan.code(node.folder) for plan in plans for node in plan.nodes.values()
    }


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """The smoke config on a user's files, which are no results and stay where they are, with
    features that two jobs share."""
    content = yaml.safe_load(SMOKE.read_text())
    (tmp_path / "images.txt").write_text("cat.png cat\n")
    data = {
        "kind": "list",
        "images": "pictures",
        "splits": dict.fromkeys(SPLITS, "images.txt"),
    }
    content |= {"pretraining": content["data"], "data": data}
    content["encoders"]["dinov2"]["jobs"] = 2
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def expected_jobs(config: Path) -> dict[str, int]:
    stages = Counter(node.stage for node in load_plan(config).nodes.values())
    return {**stages, "features_part": 2}


def test_another_workflow_uses_this_one_as_a_module(tmp_path: Path, config: Path) -> None:
    snakefile = tmp_path / "Snakefile"
    snakefile.write_text(OTHER.format(snakefile=str(ROOT / "workflow" / "Snakefile")))
    planned = jobs(snakemake(tmp_path, "--dry-run", config=config, snakefile=snakefile))
    assert planned.pop("own") == planned.pop("vista_summary") == 1
    assert planned == {f"vista_{rule}": n for rule, n in expected_jobs(config).items()}


def test_a_named_config_replaces_that_of_a_project(tmp_path: Path, config: Path) -> None:
    assert main(["init", str(tmp_path), "--force"]) == 0
    planned = snakemake(tmp_path, "--dry-run", config=config, snakefile=tmp_path / "Snakefile")
    assert jobs(planned) == expected_jobs(config)
