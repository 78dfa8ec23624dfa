"""Which dictionaries a config compares: entries of one model, and the vision SAEs of an encoder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from vista.engine.forecast.need import START
from vista.engine.forecast.needs import node_need
from vista.engine.forecast.shapes import Shapes
from vista.engine.node import Node
from vista.engine.plan import Plan, load_plan
from vista.errors import UserError
from vista.metrics.sae_stability.stage import SaeStabilityOrder

ROOT = Path(__file__).parents[2]


@pytest.fixture
def content(tmp_path: Path) -> dict[str, Any]:
    whole: dict[str, Any] = yaml.safe_load((ROOT / "config" / "default.yaml").read_text())
    first = next(iter(whole["llms"].values()))
    model, layers = first["model"], [0, 1]
    whole["llms"] = {
        "a": {"model": model, "saes": {"layers": layers, "train": {}}},
        "other": {"model": {"source": {"kind": "standin", "family": "llama"}},
                  "saes": {"layers": layers, "train": {}}},
        "b": {"model": model, "saes": {"layers": [1], "train": {"seed": 1}}},
        "km": {"model": model, "saes": {"layers": layers, "train": {"architecture": "kmeans"}}},
    }  # fmt: skip
    whole["encoders"] = {"dinov2": {"source": {"kind": "standin", "family": "dinov2"}}}
    whole["sweep"] = [{"llms": ["a"], "sae_weights": [0], "seeds": [0]}]
    whole |= {"metrics": {"sae_stability": {}}, "interventions": None, "probing": None}
    whole |= {"vision_saes": {}, "results": str(tmp_path / "results")}
    return whole


def compared(plan: Plan) -> list[Node]:
    return [node for node in plan.nodes.values() if node.stage == "sae_stability"]


def names(node: Node) -> list[str]:
    return [one["name"] for one in node.settings["dictionaries"]]


def test_entries_of_one_model_are_compared_layer_by_layer(content: dict[str, Any]) -> None:
    plan = load_plan(content)
    nodes = compared(plan)
    assert {node.name: names(node) for node in nodes} == {
        "a-l0": ["a", "km"],
        "a-l1": ["a", "b", "km"],
    }
    for node in nodes:
        saes, labels = node.inputs["saes"], node.inputs["labels"]
        assert isinstance(saes, tuple) and isinstance(labels, tuple)
        assert [sae.settings["name"] for sae in saes] == [
            f"{name}-{node.name[-2:]}" for name in names(node)
        ]
        assert [label.inputs["sae"] for label in labels] == list(saes)
        order = SaeStabilityOrder.model_validate(node.order)
        assert order.dictionaries[-1].train == node.settings["dictionaries"][-1]["train"]
    # An entry that no block of the sweep names is trained, checked and labelled.
    stages = {(node.stage, node.name) for node in plan.nodes.values()}
    for stage in ("train_sae", "import_sae", "check_sae", "label_latents"):
        assert (stage, "b-l1") in stages and (stage, "km-l0") in stages
    assert all(name == "a" for name in _llms_of_latents(plan))


def _llms_of_latents(plan: Plan) -> list[str]:
    return [n.name.split("-")[1] for n in plan.nodes.values() if n.stage == "latents"]


def test_vision_saes_are_compared_encoder_by_encoder_with_their_checks(
    content: dict[str, Any],
) -> None:
    content["encoders"]["clip"] = {"source": {"kind": "standin", "family": "clip"}}
    content["sweep"][0]["encoders"] = ["dinov2"]
    content["vision_saes"] = {
        "k4": {"train": {"k": 4}},
        "km": {"train": {"architecture": "kmeans", "device": "auto"}},
        "left_out": {},
    }
    content["probing"] = {"vision_saes": ["k4", "km"]}
    plan = load_plan(content)
    nodes = [node for node in compared(plan) if "features" in node.inputs]
    assert {node.name: names(node) for node in nodes} == {
        "dinov2": ["k4", "km"],
        "clip": ["k4", "km"],
    }
    report = next(node for node in plan.nodes.values() if node.stage == "report")
    checks = [p for p in report.settings["points"] if p["metric"] == "check_vision_sae"]
    assert sorted((p["encoder"], p["method"]) for p in checks) == [
        ("clip", "k4"), ("clip", "km"), ("dinov2", "k4"), ("dinov2", "km"),
    ]  # fmt: skip
    # Where an SAE is trained is no part of what is compared.
    content["vision_saes"]["km"]["train"]["device"] = "cpu"
    assert {node.id for node in compared(load_plan(content))} == {n.id for n in compared(plan)}
    # An SAE that another metric probes too has its check once.
    content["probing"]["ontology"] = {}
    both = next(n for n in load_plan(content).nodes.values() if n.stage == "report")
    points = [p for p in both.settings["points"] if p["metric"] == "check_vision_sae"]
    assert len(points) == 4


def test_no_two_dictionaries_of_one_model(content: dict[str, Any]) -> None:
    content["llms"] = {name: content["llms"][name] for name in ("a", "other")}
    with pytest.raises(UserError, match="no two `llms` have an equal `model`"):
        load_plan(content)
    content["vision_saes"] = {"k4": {}, "k8": {}}
    with pytest.raises(UserError, match="no two `vision_saes`"):
        load_plan(content)
    content["probing"] = {}
    assert [node.name for node in compared(load_plan(content))] == ["dinov2"]


def test_another_seed_of_kmeans_shares_nothing_but_its_model_and_text(
    content: dict[str, Any],
) -> None:
    nodes = {n.name: n for n in load_plan(content).nodes.values() if n.stage == "train_sae"}
    assert "vista.sae.trainers.kmeans" in nodes["km-l0"].modules
    assert not any("trainers" in module for module in nodes["a-l0"].modules)
    assert nodes["km-l0"].settings["sae"]["k"] == 1


def test_forecast(content: dict[str, Any]) -> None:
    plan = load_plan(content)
    shapes = Shapes(Path(plan.results), plan.nodes.values(), 1)
    first, second = (node_need(node, shapes) for node in compared(plan))
    # Two dictionaries of 384 latents, and three.
    assert first.held == second.held == 24 * 384**2
    assert first.seconds is not None and second.seconds is not None and first.disk is not None
    assert START < first.seconds < second.seconds < 10
    times = {
        node.name: node_need(node, shapes).seconds
        for node in plan.nodes.values()
        if node.stage == "train_sae"
    }
    assert times["km-l0"] < times["a-l0"]  # type: ignore[operator]


def test_the_shipped_config() -> None:
    plan = load_plan(ROOT / "config" / "dictionaries.yaml")
    assert [(node.name, len(names(node))) for node in compared(plan)] == [
        ("gemma2-l0", 8), ("gemma2-l1", 8), ("gemma2-l2", 8), ("dinov2", 7),
    ]  # fmt: skip
