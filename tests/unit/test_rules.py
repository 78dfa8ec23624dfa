"""Each rule names its inputs by role, and names exactly those that its stage can have."""

from __future__ import annotations

import importlib
import re
from collections import defaultdict
from pathlib import Path

import pytest

from vista.config.metric import declared_metrics
from vista.engine.code import stage_module
from vista.engine.job import roles as declared_roles
from vista.engine.plan import load_plan
from vista.engine.stages import stages
from vista.stages import MAKERS

ROOT = Path(__file__).parents[2]
CONFIGS = sorted(ROOT.glob("config/*.yaml"))
# Roles that no shipped config has: of judges that look, that run a fetched model or that read
# WordNet, of fetched or listed data, of packages, models and vision SAEs in files, and of
# edits that read the latent that they change.
_JUDGE = {"judge", "files"}
FURTHER = {
    "fetch_package": {"files"},
    "compose_scenes": {"packages", "files"},
    "join_package": {"parts"},
    "import_gguf": {"package", "files"},
    "train_sae": {"cache"},
    "check_sae": {"cache"},
    "label_latents": {"cache"},
    "cache_text": {"llm", "text"},
    "index_text": {"llm", "text"},
    "import_onnx": {"package", "files"},
    "control_tokens": {"files"},
    "choose_scale": {"judge", "files"},
    "records": {"files"},
    "expressions": {"records", "fetched", "files"},
    "text": {"files", "packages"},
    "prompt_features": {"files"},
    "train_diffusion": {"fetched"},
    "import_projector": {"features", "llm", "files"},
    "import_vision_sae": {"features", "records", "encoder", "fetched", "files"},
    "label_by_steering": {"files"},
    "train_guided_sae": {"features", "records", "encoder", "files"},
    "label_guided_latents": {"features", "records", "sae", "check"},
    "suggest": {"files"},
    "train_projector": {"files"},
    "train_cross_attention": {"features", "records", "llm", "files"},
    "latents": {"files"},
    "directions": _JUDGE,
    "edit_captions": {*_JUDGE, "saes", "vision_sae"},
}


def named() -> dict[str, set[str]]:
    """The roles in each rule's text, by rule; those of metrics by their declarations."""
    rules = {name: set(metric.reads) for name, metric in declared_metrics().items()}
    for path in sorted((ROOT / "workflow/rules").glob("*.smk")):
        for block in re.split(r"^(?=use rule |rule )", path.read_text(), flags=re.MULTILINE):
            if name := re.match(r"(?:use rule stage as|rule) (\w+)", block):
                inputs = re.search(r"\broles\(([^)]*)\)", block)
                rules[name[1]] = set(re.findall(r'"([\w*]+)"', inputs[1] if inputs else ""))
    return rules


@pytest.fixture(scope="module")
def roles() -> dict[str, set[str]]:
    """The roles that nodes of the shipped configs have, by stage."""
    found: defaultdict[str, set[str]] = defaultdict(set)
    for path in CONFIGS:
        for node in load_plan(path).nodes.values():
            found[node.stage] |= {*node.inputs, *(["files"] if node.files else [])}
    return found


def test_every_stage_has_a_rule_and_every_rule_a_stage() -> None:
    extra = {"stage", "summary", "features_part"}
    assert set(named()) - extra == set(stages())


def test_a_rule_names_the_roles_that_its_nodes_can_have(roles: dict[str, set[str]]) -> None:
    """A role that its rule does not name would let a job start before its input is there."""
    rules = named()
    for stage in MAKERS:
        assert rules[stage] == roles[stage] | FURTHER.get(stage, set()), stage


@pytest.mark.parametrize("stage", stages())
def test_a_rule_names_the_inputs_that_its_stage_declares(stage: str) -> None:
    run = importlib.import_module(stage_module(stage)).run
    assert named()[stage] - {"files"} == set(declared_roles(run.inputs_type))


def test_what_a_rule_names_is_all_that_its_job_waits_for() -> None:
    rules = named()
    for path in CONFIGS:
        plan = load_plan(path)
        for (stage, folder), node in plan.nodes.items():
            inputs = plan.inputs(folder, rules[stage])
            files = plan.inputs(folder, ["files"]).get("files", [])
            parents = [f"{plan.results}/{parent.path}/manifest.json" for parent in node.parents()]
            assert sorted(file for role in inputs.values() for file in role) == sorted(
                [*parents, *files]
            )
