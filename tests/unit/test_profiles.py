"""The clusters' profiles ask for what the forecast computes, and for little more."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import yaml

from vista.engine.code import is_fetch
from vista.engine.forecast.needs import node_need
from vista.engine.forecast.shapes import Shapes
from vista.engine.plan import load_plan

ROOT = Path(__file__).parents[2]
LIBRARIES = 4e9
STEP = 4e9
HOUR, DAY = 3600, 24 * 3600
# What a job that has them among its inputs loads whole.
LOADED = ("fetch_model", "fetch_sae", "import_sae", "train_vision_sae", "train_diffusion")


@pytest.fixture(scope="module")
def needs() -> dict[str, tuple[float, float]]:
    """Bytes that a job of each rule loads and holds and twice its seconds: the most of any such
    config."""
    found: dict[str, tuple[float, float]] = defaultdict(lambda: (0.0, 0.0))
    configs = ROOT / "config"
    for config in (*configs.glob("paper*.yaml"), configs / "probing-imagenet.yaml"):
        nodes = load_plan(config).nodes.values()
        shapes = Shapes(Path("nothing is done yet"), nodes, threads=16)
        for node in nodes:
            sizes = [
                node_need(each, shapes).disk for each in node.parents() if each.stage in LOADED
            ]
            loaded = sum(size for size in sizes if size is not None)
            assert len(sizes) == sum(size is not None for size in sizes), node.path
            before, need = found[node.stage], node_need(node, shapes)
            loaded, seconds = loaded + (need.held or 0.0), need.seconds or 0.0
            found[node.stage] = max(before[0], loaded), max(before[1], 2 * seconds)
    return {stage: each for stage, each in found.items() if not is_fetch(stage)}


@pytest.mark.parametrize("name", ["slurm", "cluster-generic"])
def test_memory_and_time_are_those_of_the_published_configs(
    name: str, needs: dict[str, tuple[float, float]]
) -> None:
    path = ROOT / "workflow" / "profiles" / name / "config.yaml"
    profile: dict[str, Any] = yaml.safe_load(path.read_text())
    own = profile["set-resources"]
    for rule, (loaded, seconds) in needs.items():
        asked = profile["default-resources"] | own.get(rule, {})
        memory, raised = str(asked["mem_mb"]).split(" * ")
        assert raised == "attempt"
        least = LIBRARIES + loaded
        assert least <= int(memory) * 1e6 <= least + STEP, (rule, loaded)
        assert asked["runtime"] * 60 >= min(max(seconds, HOUR), DAY), (rule, seconds)
    assert own["features"] == own["features_part"]
    assert profile["retries"] == 2


@pytest.mark.parametrize("config", ["paper", "probing-imagenet"])
def test_what_may_run_on_a_gpu_asks_for_one(config: str) -> None:
    text = "".join(path.read_text() for path in (ROOT / "workflow" / "rules").glob("*.smk"))
    nodes = load_plan(ROOT / "config" / f"{config}.yaml").nodes.values()
    asking = {node.stage for node in nodes if node.gpus}
    assert asking
    for stage in asking:
        rule = text.split(f"use rule stage as {stage} with:")[1].split("use rule")[0]
        assert "gpu=GPUS" in rule
