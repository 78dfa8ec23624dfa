"""What stages declare: the settings and the inputs that the plan gives them."""

from __future__ import annotations

import importlib
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict, ValidationError

from vista.engine.artifacts import Artifact
from vista.engine.code import stage_module
from vista.engine.job import Job, Stage, StageJob, roles, roles_beginning, stage
from vista.engine.node import Node
from vista.engine.plan import load_plan
from vista.engine.stages import stages

CONFIGS = sorted((Path(__file__).parents[2] / "config").glob("*.yaml"))
ARTIFACT = Artifact(Path("a"), {}, {})


@pytest.fixture(scope="module")
def nodes() -> Mapping[str, list[Node]]:
    """The nodes of the shipped configs, by stage."""
    by_stage: defaultdict[str, list[Node]] = defaultdict(list)
    for path in CONFIGS:
        for node in load_plan(path).nodes.values():
            by_stage[node.stage].append(node)
    return by_stage


def declared(name: str) -> Stage[Any, Any]:
    declaration = importlib.import_module(stage_module(name)).run
    assert isinstance(declaration, Stage)
    return declaration


@pytest.mark.parametrize("name", stages())
def test_a_stage_declares_what_its_nodes_give_it(
    name: str, nodes: Mapping[str, list[Node]]
) -> None:
    run = declared(name)
    for node in nodes[name]:
        inputs: dict[str, Artifact | list[Artifact]] = {
            role: [ARTIFACT] * len(source) if isinstance(source, tuple) else ARTIFACT
            for role, source in node.inputs.items()
        }
        received: list[StageJob[Any, Any]] = []
        Stage(received.append, run.settings_type, run.inputs_type)(
            Job(name, node.order, inputs, Path("work"))
        )
        # No key of the order may be lost on the way.
        dumped = received[0].settings.model_dump(mode="json", exclude_unset=True)
        assert lacking(node.order, dumped) == []


def lacking(order: Any, dumped: Any, key: str = "") -> list[str]:
    """The keys of an order that its settings do not hold."""
    if not isinstance(order, dict):
        return []
    if not isinstance(dumped, dict):
        return [key]
    return [
        name
        for part, value in order.items()
        for name in (
            lacking(value, dumped[part], f"{key}.{part}") if part in dumped else [f"{key}.{part}"]
        )
    ]


class Settings(BaseModel):
    model_config = ConfigDict(extra="forbid")

    size: int


@dataclass(frozen=True, kw_only=True)
class Inputs:
    one: Artifact
    other: Artifact | None = None
    many: list[Artifact] = field(default_factory=list)
    either: Artifact | list[Artifact] | None = None
    family: Mapping[str, Artifact] = roles_beginning("judge_")


def received(inputs: dict[str, Any], **settings: Any) -> StageJob[Settings, Inputs]:
    jobs: list[StageJob[Settings, Inputs]] = []

    @stage(Settings, Inputs)
    def run(job: StageJob[Settings, Inputs]) -> None:
        jobs.append(job)

    run(Job("stage", settings or {"size": 3}, inputs, Path("work"), 2, (1, 3)))
    return jobs[0]


def test_a_stage_receives_typed_settings_and_inputs_by_name() -> None:
    job = received({"one": ARTIFACT, "many": [ARTIFACT], "judge_a": ARTIFACT}, size=4)
    assert job.settings == Settings(size=4)
    assert job.inputs == Inputs(one=ARTIFACT, many=[ARTIFACT], family={"judge_a": ARTIFACT})
    assert (job.stage, job.threads, job.part) == ("stage", 2, (1, 3))
    assert job.checkpoints == Path("work/checkpoints")


def test_an_input_may_be_one_artifact_or_a_list_where_its_field_says_so() -> None:
    assert received({"one": ARTIFACT, "either": ARTIFACT}).inputs.either == ARTIFACT
    assert received({"one": ARTIFACT, "either": [ARTIFACT]}).inputs.either == [ARTIFACT]


def test_the_roles_of_inputs_are_their_fields() -> None:
    assert roles(Inputs) == ("one", "other", "many", "either", "judge_*")


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, "stage: input one is missing"),
        ({"one": [ARTIFACT]}, "stage: input one is a list"),
        ({"one": ARTIFACT, "other": [ARTIFACT]}, "stage: input other is a list"),
        ({"one": ARTIFACT, "many": ARTIFACT}, "stage: input many is one artifact"),
        ({"one": ARTIFACT, "new": ARTIFACT}, "stage: input new is not declared by Inputs"),
    ],
)
def test_other_inputs_than_the_declared_ones_are_refused(
    inputs: dict[str, Any], message: str
) -> None:
    with pytest.raises(TypeError, match=message):
        received(inputs)


def test_settings_that_a_stage_does_not_have_are_refused() -> None:
    with pytest.raises(ValidationError, match="speed"):
        received({"one": ARTIFACT}, size=1, speed=2)
