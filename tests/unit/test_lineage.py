"""Manifests know their parents: from a projector one can walk to its encoder, LLM and SAEs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from finished_plan import publish, publish_all

from vista.engine.artifacts import Provenance, open_artifact, publishing
from vista.engine.lineage import lineage, parents_of
from vista.engine.node import Node
from vista.engine.plan import Plan, load_plan
from vista.store.show import describe

SMOKE = Path(__file__).parents[2] / "config" / "smoke.yaml"
POINT = "dinov2-gemma2-w1-s0"


@pytest.fixture(scope="module")
def plan() -> Plan:
    loaded: dict[str, Any] = yaml.safe_load(SMOKE.read_text())
    return load_plan({**loaded, "metrics": {"probe": loaded["metrics"]["probe"]}})


@pytest.fixture
def results(tmp_path: Path, plan: Plan) -> Path:
    publish_all(plan, tmp_path / "results")
    return tmp_path / "results"


def node(plan: Plan, stage: str, name: str) -> Node:
    return next(n for n in plan.nodes.values() if (n.stage, n.name) == (stage, name))


def test_the_manifest_names_the_folder_of_each_input_by_role(plan: Plan, results: Path) -> None:
    projector = node(plan, "train_projector", POINT)
    parents = open_artifact(results / projector.path).manifest["parents"]
    assert parents == projector.input_paths
    assert parents["features"] == node(plan, "features", "dinov2").path
    assert parents["saes"] == [node(plan, "import_sae", f"gemma2-l{n}").path for n in (0, 1)]
    assert all((results / path / "manifest.json").is_file() for path in parents["saes"])


def test_from_a_projector_one_walks_to_encoder_llm_and_saes(plan: Plan, results: Path) -> None:
    projector = node(plan, "train_projector", POINT)
    walked = {parent.path: parent for parent in lineage(results / projector.path)}
    above: set[str] = set()
    todo = [projector]
    while todo:
        for parent in todo.pop().parents():
            above.add(parent.path)
            todo.append(parent)
    assert walked.keys() == above
    encoder = walked[node(plan, "train_encoder", "dinov2").path]
    assert (encoder.role, encoder.child) == ("encoder", node(plan, "features", "dinov2").path)
    # The LLM is an input of the projector, of its SAEs and of their checks: it is met there first.
    llm = walked[node(plan, "train_llm", "gemma2").path]
    assert (llm.role, llm.child) == ("llm", projector.path)


def test_show_prints_the_parents_and_what_they_are_made_from(plan: Plan, results: Path) -> None:
    projector = node(plan, "train_projector", POINT)
    features, encoder = node(plan, "features", "dinov2"), node(plan, "train_encoder", "dinov2")
    text = describe(results / projector.path)
    direct, further = text.split("\nmade from\n")[1].split("\nwhich are made from\n")
    lines = [line.split() for line in direct.splitlines()]
    assert ["features", features.path] in lines
    for sae in projector.inputs["saes"]:  # type: ignore[union-attr]
        assert ["saes", sae.path] in lines
    assert len(lines) == len(projector.parents())
    lines = [line.split() for line in further.splitlines()]
    assert ["encoder", encoder.path, "(of", f"{features.path})"] in lines
    assert "NOT THERE" not in text
    (results / encoder.path / "manifest.json").unlink()
    assert f"{encoder.path}  (of {features.path})  NOT THERE\n" in describe(
        results / projector.path
    )


def test_where_inputs_lie_is_no_reason_to_make_an_artifact_again(tmp_path: Path) -> None:
    old = Provenance("features", {"seed": 0}, {"records": "ab"}, {"a:b": "1"}, {})
    new = Provenance(
        "features", {"seed": 0}, {"records": "ab"}, {"a:b": "1"}, {}, {"records": "r/a-1"}
    )
    assert old == new
    for first, second in ((old, new), (new, old)):
        results = tmp_path / str(len(first.parents))
        with publishing(results, "features", "clip-0123456789", first) as work:
            assert work is not None
            (work / "table.txt").write_text("table")
        path = results / "features" / "clip-0123456789"
        before = (path / "manifest.json").read_bytes()
        (path / "manifest.json").unlink()  # as Snakemake does before a job
        with publishing(results, "features", "clip-0123456789", second) as work:
            assert work is None
        assert (path / "manifest.json").read_bytes() == before
        assert open_artifact(path).inputs == {"records": "ab"}
        assert ("parents" in open_artifact(path).manifest) == bool(first.parents)


def test_parents_are_outside_of_what_is_digested(plan: Plan, tmp_path: Path) -> None:
    encoder = node(plan, "train_encoder", "dinov2")
    for parent in encoder.parents():
        for grandparent in parent.parents():
            publish(grandparent, tmp_path)
        publish(parent, tmp_path)
    path = publish(encoder, tmp_path)
    record = open_artifact(path).manifest
    plain = Provenance(*(record[k] for k in ("stage", "settings", "inputs", "code", "packages")))
    with publishing(tmp_path / "plain", encoder.stage, encoder.folder, plain) as work:
        assert work is not None
        (work / "content.txt").write_text(encoder.path)
    other = open_artifact(tmp_path / "plain" / encoder.path)
    assert other.digest == record["digest"]


@pytest.mark.parametrize(
    "listed",
    [None, [], "x", {"encoder": 7}, {"encoder": "../../etc"}, {"encoder": ["features/..", {}]}],
)
def test_an_old_or_damaged_list_of_parents_ends_the_walk(tmp_path: Path, listed: Any) -> None:
    folder = tmp_path / "features" / "clip-0123456789"
    folder.mkdir(parents=True)
    manifest = {"stage": "features", "settings": {}, "digest": "d", "parents": listed}
    if listed is None:
        del manifest["parents"]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert list(lineage(folder)) == []
    assert [path for paths in parents_of(manifest).values() for path in paths] == []
    assert "made from" not in describe(folder)


def test_a_circle_of_parents_ends(tmp_path: Path) -> None:
    for one, other in (("a", "b"), ("b", "a")):
        folder = tmp_path / "features" / one
        folder.mkdir(parents=True)
        (folder / "manifest.json").write_text(
            json.dumps({"stage": "features", "parents": {"features": f"features/{other}"}})
        )
    assert [parent.path for parent in lineage(tmp_path / "features" / "a")] == ["features/b"]
