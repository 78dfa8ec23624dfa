"""`--until RULE` makes all artifacts of a rule, also those that read another artifact of the rule.

Jobs create nothing but their manifests here: the test is which jobs Snakemake starts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from workflow_run import ROOT, SMOKE, jobs, snakemake

from vista.cli import main
from vista.engine.node import Node
from vista.engine.plan import Plan, load_plan

# The command of a job is: vista STAGE --spec SPEC --manifest FILE ...
STUB = """
shell.prefix('vista() {{ touch "$5"; }}; ')
"""
CHECKOUT = f"""
include: {str(ROOT / "Snakefile")!r}

rule own:
    default_target: True
    input: rules.default.input
"""
# Latents in the scale of text read the latents of their point, a stage of training starts from the
# one before, and a control of an edit has the strength that was chosen for the edit.
CHAINED = ("latents", "train_projector", "intervention")


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    content = yaml.safe_load(SMOKE.read_text())
    content["sweep"] = [{"encoders": ["dinov2"], "sae_weights": [0, 1], "seeds": [0]}]
    content["projector"]["stages"] = [{"steps": steps} for steps in (20, 30, 40)]
    content["metrics"] = {"matching_rate": content["metrics"]["matching_rate"]}
    removal = {"task": "remove", "how": "subtract", "controls": ["random_source"]}
    content["interventions"] = {"methods": {"latent": {"sae_weights": [1]}}, "removal": removal}
    path = tmp_path_factory.mktemp("config") / "chained.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.fixture(scope="module")
def plan(config: Path) -> Plan:
    return load_plan(config)


def checkout(folder: Path) -> str:
    return CHECKOUT


def project(folder: Path) -> str:
    """Return the Snakefile of a project, which uses the workflow as a module."""
    assert main(["init", str(folder), "--config", "smoke"]) == 0
    return (folder / "Snakefile").read_text()


def with_ancestors(nodes: list[Node]) -> set[str]:
    """The artifacts of nodes and all that they are made from."""
    return {path for node in nodes for path in (node.path, *with_ancestors(node.parents()))}


def made(folder: Path) -> set[str]:
    manifests = (folder / "results").glob("*/*/manifest.json")
    return {path.parent.relative_to(folder / "results").as_posix() for path in manifests}


def test_in_the_plan_one_artifact_of_a_rule_reads_another(plan: Plan) -> None:
    for stage in CHAINED:
        nodes = [node for node in plan.nodes.values() if node.stage == stage]
        assert any(parent.stage == stage for node in nodes for parent in node.parents()), stage


@pytest.mark.parametrize(("kind", "stages"), [(checkout, CHAINED), (project, ("latents",))])
def test_until_rules_makes_all_their_artifacts_and_what_they_read(
    kind: Callable[[Path], str], stages: tuple[str, ...], tmp_path: Path, config: Path, plan: Plan
) -> None:
    snakefile = tmp_path / "Snakefile"
    snakefile.write_text(kind(tmp_path) + STUB)
    wanted = with_ancestors([node for node in plan.nodes.values() if node.stage in stages])
    until = ("--until", *stages)
    planned = snakemake(tmp_path, "--dry-run", *until, config=config, snakefile=snakefile)
    assert jobs(planned) == Counter(path.split("/")[0] for path in wanted)
    snakemake(tmp_path, *until, config=config, snakefile=snakefile)
    assert made(tmp_path) == wanted
