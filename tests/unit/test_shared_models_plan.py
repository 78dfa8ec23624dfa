"""Entries of `llms` that read one model by several SAEs: what they share."""

from __future__ import annotations

import copy
from typing import Any

from finished_plan import smoke

from vista.config.run import RunConfig
from vista.engine.node import Node
from vista.engine.plan import Plan


def plan(**saes: Any) -> Plan:
    config = smoke()
    other = copy.deepcopy(config["llms"]["gemma2"])
    other["saes"]["train"] |= {"seed": 1, **saes}
    config["llms"]["gemma2_seed1"] = other
    config["sweep"] = [{"encoders": ["dinov2"], "sae_weights": [0, 1], "seeds": [0]}]
    return Plan(RunConfig.model_validate(config))


def of_stage(made: Plan, stage: str) -> dict[str, Node]:
    return {node.name: node for node in made.nodes.values() if node.stage == stage}


def test_dictionaries_of_one_model_share_the_model_and_what_reads_no_sae() -> None:
    made = plan()
    assert set(of_stage(made, "train_llm")) == {"gemma2"}
    assert set(of_stage(made, "train_projector")) == {
        "dinov2-gemma2-w0-s0",
        "dinov2-gemma2-w1-s0",
        "dinov2-gemma2_seed1-w1-s0",
    }
    latents = of_stage(made, "latents")
    without = of_stage(made, "train_projector")["dinov2-gemma2-w0-s0"]
    read = latents["dinov2-gemma2_seed1-w0-s0"].inputs["projector"]
    assert isinstance(read, Node) and read.path == without.path


def test_each_dictionary_is_trained_and_labelled() -> None:
    made = plan()
    names = {f"{llm}-l{layer}" for llm in ("gemma2", "gemma2_seed1") for layer in (0, 1)}
    for stage in ("train_sae", "import_sae", "check_sae", "label_latents"):
        assert set(of_stage(made, stage)) == names


def test_a_projector_that_measures_the_sae_error_is_that_of_its_dictionary() -> None:
    config = smoke()
    config["llms"]["other"] = copy.deepcopy(config["llms"]["gemma2"])
    config["llms"]["other"]["saes"]["train"] |= {"seed": 1}
    config["sweep"] = [{"encoders": ["dinov2"], "sae_weights": [0], "seeds": [0]}]
    config["projector"]["stages"][0] |= {"measure_every": 5}
    made = Plan(RunConfig.model_validate(config))
    assert len(of_stage(made, "train_projector")) == 2


def test_the_report_knows_the_dictionaries_of_a_model() -> None:
    (report,) = of_stage(plan(), "report").values()
    assert report.settings["dictionaries"] == [["gemma2", "gemma2_seed1"]]
    (report,) = of_stage(Plan(RunConfig.model_validate(smoke())), "report").values()
    assert "dictionaries" not in report.settings
