"""Which images the frequency mask is estimated on, as the plan has it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from vista.engine.node import Node
from vista.engine.plan import Plan, load_plan

CONFIGS = Path(__file__).parents[2] / "config"
METRICS = ("matching_rate", "localization")


def content(name: str = "smoke") -> dict[str, Any]:
    """A config that says nothing of the mask's images; smoke without its controls."""
    loaded: dict[str, Any] = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())
    for metric in METRICS:
        loaded["metrics"][metric] = {**loaded["metrics"][metric]}
        mask = {**loaded["metrics"][metric]["mask"]}
        if name == "smoke":
            mask.pop("images", None)
            loaded["sweep"] = loaded["sweep"][:1]
        loaded["metrics"][metric]["mask"] = mask
    return loaded


def masked(plan: Plan) -> list[Node]:
    nodes = [node for node in plan.nodes.values() if node.stage in METRICS]
    assert {node.stage for node in nodes} == set(METRICS)
    return nodes


def ids(plan: Plan) -> dict[str, set[str]]:
    stages: dict[str, set[str]] = {}
    for node in plan.nodes.values():
        stages.setdefault(node.stage, set()).add(node.id)
    return stages


def test_the_default_reads_latents_of_the_validation_images_of_the_same_projector() -> None:
    plan = load_plan(content())
    for node in masked(plan):
        own, others = node.inputs["latents"], node.inputs["mask_latents"]
        assert isinstance(own, Node)
        assert isinstance(others, Node)
        assert own.settings["latents"]["split"] == "test"
        assert others.settings["latents"]["split"] == "validation"
        assert others.inputs["projector"].id == own.inputs["projector"].id  # type: ignore[union-attr]
        assert "images" not in node.settings["mask"]
    made = {node.id for node in plan.nodes.values() if node.stage == "latents"}
    assert len(made) == 2 * len(plan.config.points())


def test_interventions_and_the_mask_share_the_latents_of_validation_images() -> None:
    plan = load_plan(content("default"))
    chosen = {n.inputs["latents"].id for n in plan.nodes.values() if n.stage == "directions"}  # type: ignore[union-attr]
    assert chosen <= {node.inputs["mask_latents"].id for node in masked(plan)}  # type: ignore[union-attr]


def test_with_the_evaluated_images_nothing_but_the_metrics_is_another_artifact() -> None:
    default, changed = content(), content()
    for name in METRICS:
        changed["metrics"][name]["mask"]["images"] = "evaluated"
    before, after = ids(load_plan(default)), ids(load_plan(changed))
    differ = {stage for stage in before if before[stage] != after[stage]}
    assert differ == {*METRICS, "latents", "report"}
    assert after["latents"] < before["latents"]
    assert all("mask_latents" not in node.inputs for node in masked(load_plan(changed)))


@pytest.mark.parametrize("name", ["paper", "paper-gemma9b", "paper-llama8b"])
def test_the_published_configs_estimate_the_mask_on_the_evaluated_images(name: str) -> None:
    plan = load_plan(CONFIGS / f"{name}.yaml")
    assert all("mask_latents" not in node.inputs for node in masked(plan))


def test_without_validation_images_the_evaluated_ones_are_used() -> None:
    paper = content("paper")
    for name in METRICS:
        del paper["metrics"][name]["mask"]
    assert all("mask_latents" in node.inputs for node in masked(load_plan(paper)))
    paper["data"] |= {"fractions": {"train": 0.5, "validation": 0, "test": 0.5}}
    assert all("mask_latents" not in node.inputs for node in masked(load_plan(paper)))
    assert all(
        "mask_latents" not in node.inputs
        for node in masked(load_plan({**content(), "paper_faithful": True}))
    )
    # The validation images are measured themselves.
    measured = {**content(), "latents": {"split": "validation"}}
    assert all("mask_latents" not in node.inputs for node in masked(load_plan(measured)))
