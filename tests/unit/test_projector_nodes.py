"""Stages of a projector's training in the plan: what they depend on, and which points share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from vista.config.projector import SAE_TERM
from vista.engine.node import Node
from vista.engine.plan import Plan, load_plan
from vista.errors import UserError

CONFIGS = Path(__file__).parents[2] / "config"


def trained(stages: list[dict[str, Any]], **projector: Any) -> dict[str, list[Node]]:
    """The nodes of training by readable name, of a sweep over weights 0, 1 and 3."""
    content = yaml.safe_load((CONFIGS / "default.yaml").read_text())
    content["encoders"] = {"dinov2": content["encoders"]["dinov2"]}
    content["llms"] = {"gemma2": content["llms"]["gemma2"]}
    content["sweep"] = [{"sae_weights": [0, 1, 3], "seeds": [0]}]
    content["projector"] = {"stages": stages, **projector}
    nodes: dict[str, list[Node]] = {}
    for node in load_plan(content).nodes.values():
        if node.stage == "train_projector":
            nodes.setdefault(node.name, []).append(node)
    return nodes


def test_a_stage_without_the_term_is_shared_by_all_weights_and_reads_no_sae() -> None:
    nodes = trained([{"steps": 5, "sae_factor": 0}, {"steps": 5, "sae_warmup": 0.5}])
    names = {f"dinov2-gemma2-w{weight}-s0" for weight in (0, 1, 3)}
    assert set(nodes) == names | {"dinov2-gemma2-w0-s0-stage1"}
    (first,) = nodes["dinov2-gemma2-w0-s0-stage1"]
    assert first.settings["sae_weight"] == 0
    assert not first.inputs.get("saes")
    assert first.modules == ()
    assert all(nodes[name][0].inputs["start"].id == first.id for name in names)  # type: ignore[union-attr]
    last = nodes["dinov2-gemma2-w3-s0"][0]
    assert last.settings["sae_weight"] == 3
    assert last.settings["training"]["sae_warmup"] == 0.5
    assert last.inputs["saes"]
    (plain,) = nodes["dinov2-gemma2-w0-s0"]
    assert "sae_warmup" not in plain.settings["training"]


def test_it_is_the_artifact_of_a_run_with_weight_zero_alone() -> None:
    zero = trained([{"steps": 5}])["dinov2-gemma2-w0-s0"][0]
    shared = trained([{"steps": 5, "sae_factor": 0}, {"steps": 5}])["dinov2-gemma2-w0-s0-stage1"][0]
    assert zero.id == shared.id


def test_a_factor_is_a_part_of_the_weight() -> None:
    nodes = trained([{"steps": 5, "sae_factor": 0.5}, {"steps": 5, "sae_factor": 0}])
    first = nodes["dinov2-gemma2-w1.5-s0-stage1"][0]
    assert first.settings["sae_weight"] == 1.5
    assert "sae_factor" not in first.settings["training"]
    last = nodes["dinov2-gemma2-w3-s0"][0]
    assert last.settings["sae_weight"] == 0
    assert not last.inputs.get("saes")


def test_measuring_at_weight_zero_reads_the_saes() -> None:
    nodes = trained([{"steps": 5, "measure_every": 2}])
    (zero,) = nodes["dinov2-gemma2-w0-s0"]
    assert zero.inputs["saes"]
    assert zero.modules == (SAE_TERM,)


def test_normalising_concerns_projectors_with_the_term_alone() -> None:
    plain = trained([{"steps": 5}])
    other = trained([{"steps": 5}], sae_term={"normalise": "variance"})
    default = trained([{"steps": 5}], sae_term={"normalise": "none"})
    for weight, same in ((0, True), (1, False), (3, False)):
        name = f"dinov2-gemma2-w{weight}-s0"
        assert (plain[name][0].id == other[name][0].id) is same
        assert plain[name][0].id == default[name][0].id
    assert other["dinov2-gemma2-w1-s0"][0].settings["sae_term"] == {"normalise": "variance"}


@pytest.mark.parametrize(
    ("stage", "term", "key"),
    [
        ({"sae_factor": -1}, {}, "sae_factor"),
        ({"sae_warmup": 1.5}, {}, "sae_warmup"),
        ({"measure_every": 0}, {}, "measure_every"),
        ({}, {"normalise": "l2"}, "normalise"),
    ],
)
def test_values_out_of_range_are_refused_by_key(
    stage: dict[str, Any], term: dict[str, Any], key: str
) -> None:
    with pytest.raises(UserError, match=key):
        trained([{"steps": 5, **stage}], sae_term=term)


def with_suggestions(**suggest: Any) -> Plan:
    content = yaml.safe_load((CONFIGS / "default.yaml").read_text())
    return load_plan({**content, "suggest": suggest})


def test_only_the_report_reads_a_suggestion_for_an_encoder_and_an_llm() -> None:
    plain, plan = load_plan(CONFIGS / "default.yaml"), with_suggestions(steps=3)
    added = [plan.nodes[key] for key in set(plan.nodes) - set(plain.nodes)]
    suggested = [node for node in added if node.stage == "suggest"]
    pairs = {(point.encoder, point.llm) for point in plan.config.points()}
    assert sorted(node.name for node in suggested) == sorted("-".join(pair) for pair in pairs)
    assert {node.stage for node in added} == {"suggest", "report"}
    for node in suggested:
        assert node.inputs["saes"]
        assert "lr" not in node.settings["training"]
        assert node.modules == (SAE_TERM,)


def test_the_learning_rate_of_the_config_is_no_part_of_a_suggestion() -> None:
    content = yaml.safe_load((CONFIGS / "default.yaml").read_text())
    ids = []
    for lr in (1e-3, 2e-3):
        changed = {"stages": [{"steps": 5, "lr": lr}]}
        plan = load_plan({**content, "projector": changed, "suggest": {}})
        ids.append({node.id for node in plan.nodes.values() if node.stage == "suggest"})
    assert ids[0] == ids[1]


def test_the_report_knows_what_the_config_chose() -> None:
    plan = load_plan(CONFIGS / "choices.yaml")
    (report,) = (node for node in plan.nodes.values() if node.stage == "report")
    places = report.settings["suggestions"]
    assert len(places) == len(plan.config.llms) == 3
    for place in places:
        assert (place["init_scale"], place["lr"], place["sae_weights"]) == (0.2, 6e-3, [1.0])
    # Short runs and projectors of the same length as in the default run.
    default = load_plan(CONFIGS / "default.yaml").config.projector
    assert plan.config.projector == default
    assert plan.config.suggest is not None
    assert plan.config.suggest.steps == default.stages[0].steps
    assert default.stages[0].lr in plan.config.suggest.lrs
    assert default.init_scale in plan.config.suggest.init_scales


def test_a_sweep_that_is_not_asked_for_is_no_part_of_a_suggestion() -> None:
    """Suggestions that were made before these settings keep their ids."""
    (settings,) = {
        str(n.settings["suggest"])
        for n in with_suggestions(steps=3).nodes.values()
        if n.stage == "suggest"
    }
    assert "init_scales" not in settings
    assert "'weights'" not in settings


@pytest.mark.parametrize(
    ("suggest", "key"),
    [
        ({"lrs": []}, "lrs"),
        ({"lrs": [0.1, -1]}, "lrs"),
        ({"weight_factors": [1, 1]}, "twice"),
        ({"init_scales": [0]}, "init_scales"),
        ({"weights": [1, 1]}, "twice"),
    ],
)
def test_what_cannot_be_tried_is_refused(suggest: dict[str, Any], key: str) -> None:
    with pytest.raises(UserError, match=key):
        with_suggestions(**suggest)


def test_a_block_of_the_sweep_may_train_for_longer_at_another_rate() -> None:
    content = yaml.safe_load((CONFIGS / "default.yaml").read_text())
    content["encoders"] = {"dinov2": content["encoders"]["dinov2"]}
    content["llms"] = {"gemma2": content["llms"]["gemma2"]}
    content["projector"] = {"stages": [{"epochs": 1, "lr": 1e-3}, {"lr": 1e-4, "batch_size": 8}]}
    content["interventions"] = None
    own = {"init_scale": 0.5, "steps": 7, "lr": 0.02}
    content["sweep"] = [{"sae_weights": [0], "seeds": [0], "recipe": own}]
    nodes = [node for node in load_plan(content).nodes.values() if node.stage == "train_projector"]
    assert {node.settings.get("projector", {}).get("init_scale") for node in nodes} == {0.5, None}
    training = [node.settings["training"] for node in nodes]
    assert {(part["steps"], part["epochs"], part["lr"]) for part in training} == {(7, None, 0.02)}
    assert sorted(part["batch_size"] for part in training) == [8, 128]
