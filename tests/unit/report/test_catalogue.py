"""The catalogue: every artifact of a run, with the models and the point that it belongs to."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from finished_plan import publish_all

from vista.engine.plan import Plan, load_plan
from vista.report.catalogue import catalogue, catalogue_of, catalogue_text
from vista.report.summary import HEADLINE, TABLES, publish_summary

SMOKE = Path(__file__).parents[3] / "config" / "smoke.yaml"
KEYS = ("encoder", "llm", "sae_weight", "seed", "method", "layer")


@pytest.fixture(scope="module")
def content() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(SMOKE.read_text())
    return loaded


@pytest.fixture(scope="module")
def plan(content: dict[str, Any]) -> Plan:
    return load_plan(content)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory, plan: Plan) -> Path:
    folder = tmp_path_factory.mktemp("run") / "results"
    publish_all(plan, folder)
    return folder


def report_of(plan: Plan, results: Path) -> Path:
    return results / "report" / Path(plan.report).parent.name


@pytest.fixture(scope="module")
def entries(plan: Plan, results: Path) -> dict[tuple[str, str], dict[str, Any]]:
    listed = catalogue(report_of(plan, results))["artifacts"]
    return {(entry["stage"], entry["name"]): entry for entry in listed}


def test_it_lists_every_artifact_of_the_run_once_with_its_folder_and_parents(
    plan: Plan, results: Path
) -> None:
    whole = catalogue(report_of(plan, results))
    assert (whole["run"], whole["report"]) == (
        plan.config.name,
        f"report/{report_of(plan, results).name}",
    )
    listed = [entry["folder"] for entry in whole["artifacts"]]
    assert listed == sorted(node.path for node in plan.nodes.values())
    for entry in whole["artifacts"]:
        node = plan.nodes[entry["stage"], entry["folder"].partition("/")[2]]
        assert (entry["stage"], entry["name"]) == (node.stage, node.name)
        paths = {path for paths in entry["parents"].values() for path in paths}
        assert paths == {parent.path for parent in node.parents()}
        assert (results / entry["folder"] / "manifest.json").is_file()


POINT = {"encoder": "dinov2", "llm": "gemma2", "sae_weight": 1.0, "seed": 0}


@pytest.mark.parametrize(
    ("stage", "name", "facts"),
    [
        ("draw_world", "glyphs", {}),
        ("records", "glyphs", {}),
        ("text", "drawn", {}),
        ("train_encoder", "dinov2", {"encoder": "dinov2"}),
        ("features", "siglip", {"encoder": "siglip"}),
        ("train_llm", "gemma2", {"llm": "gemma2"}),
        ("train_sae", "gemma2-l1", {"llm": "gemma2", "layer": 1}),
        ("import_sae", "gemma2-l0", {"llm": "gemma2", "layer": 0}),
        ("check_sae", "gemma2-l1", {"llm": "gemma2", "layer": 1}),
        ("label_latents", "gemma2-l0", {"llm": "gemma2", "layer": 0}),
        ("naming", "gemma2-l1", {"llm": "gemma2", "layer": 1}),
        ("probe", "dinov2", {"encoder": "dinov2"}),
        ("train_projector", "dinov2-gemma2-w1-s0", POINT),
        ("latents", "dinov2-gemma2-w0-s0", {**POINT, "sae_weight": 0.0}),
        ("reconstruction", "dinov2-gemma2-w1-s0", POINT),
        ("report", "smoke", {}),
    ],
)
def test_an_artifact_has_the_facts_that_apply_to_it(
    entries: dict[tuple[str, str], dict[str, Any]], stage: str, name: str, facts: dict[str, Any]
) -> None:
    entry = entries[stage, name]
    assert {key: entry[key] for key in KEYS if key in entry} == facts


def test_what_lies_between_has_the_facts_of_its_inputs_and_metrics_their_method(
    tmp_path: Path,
) -> None:
    plan = load_plan(Path(SMOKE).with_name("interventions.yaml"))
    publish_all(plan, tmp_path)
    listed = catalogue(report_of(plan, tmp_path))["artifacts"]
    assert len(listed) == len(plan.nodes)
    point_keys = ("encoder", "llm", "sae_weight", "seed")
    projectors = {e["folder"]: e for e in listed if e["stage"] == "train_projector"}
    directions = [e for e in listed if e["stage"] == "directions" and "projector" in e["parents"]]
    captions = [entry for entry in listed if entry["stage"] == "edit_captions"]
    assert directions
    assert captions
    for entry in (*directions, *captions):
        projector = projectors[entry["parents"]["projector"][0]]
        assert [entry[key] for key in point_keys] == [projector[key] for key in point_keys]
    methods = {entry["method"] for entry in listed if entry["stage"] == "intervention"}
    assert methods >= {"latent"}
    for entry in (e for e in listed if e["stage"] == "train_vision_sae"):
        assert entry["name"].startswith(entry["encoder"])
    # Every artifact that is made from one encoder alone, and no world, says which.
    assert all("encoder" in e for e in listed if e["stage"] in ("features", "train_encoder"))
    assert all("llm" in e for e in listed if e["stage"] in ("train_llm", "train_sae"))


def test_vision_saes_have_encoder_and_method_as_in_the_long_table() -> None:
    plan = load_plan(Path(SMOKE).with_name("probing.yaml"))
    manifests = {
        node.path: {"stage": node.stage, "settings": node.settings, "parents": node.input_paths}
        for node in plan.nodes.values()
    }
    report = f"report/{Path(plan.report).parent.name}"
    whole = catalogue_of(manifests, [report])["artifacts"]
    # While a run is half done, there is no report that says it.
    half = catalogue_of({f: m for f, m in manifests.items() if f != report}, [])["artifacts"]
    for listed in (whole, half):
        facts = {(e["stage"], e["name"]): {k: e[k] for k in KEYS if k in e} for e in listed}
        for stage in ("train_vision_sae", "check_vision_sae", "label_vision_latents"):
            assert facts[stage, "dinov2-topk"] == {"encoder": "dinov2", "method": "topk"}
            assert facts[stage, "dinov2_class-relu"]["encoder"] == "dinov2_class"
            # Of a text encoder, which has no entry in `encoders`.
            assert facts[stage, "one_object-text_encoder"]["method"] == "text_encoder"
        of_point = {**POINT, "method": "topk"}
        assert facts["label_by_steering", "dinov2-gemma2-w1-s0-topk"] == of_point
        assert facts["vision_labels", "dinov2-gemma2-w1-s0-topk"] == of_point
        assert facts["ontology", "dinov2-topk"] == {"encoder": "dinov2", "method": "topk"}
    assert not any("control" in e for e in half if e["stage"] == "label_by_steering")
    labels = {e["folder"]: e for e in whole if e["stage"] == "label_vision_latents"}
    for entry in labels.values():
        assert {"sae", "features", "records"} <= set(entry["parents"])


def test_an_encoder_of_two_entries_has_the_name_of_neither(
    content: dict[str, Any], tmp_path: Path
) -> None:
    shared = copy.deepcopy(content)
    shared["encoders"]["again"] = {**shared["encoders"]["dinov2"], "layer": 0}
    plan = load_plan(shared)
    publish_all(plan, tmp_path)
    listed = catalogue(report_of(plan, tmp_path))["artifacts"]
    encoders = {e["name"]: e.get("encoder") for e in listed if e["stage"] == "train_encoder"}
    assert encoders == {"dinov2": None, "siglip": "siglip"}
    features = {e["name"]: e.get("encoder") for e in listed if e["stage"] == "features"}
    assert features == {"dinov2": "dinov2", "again": "again", "siglip": "siglip"}


def test_what_is_not_there_is_left_out(plan: Plan, results: Path, tmp_path: Path) -> None:
    copied = tmp_path / "results"
    shutil.copytree(results, copied)
    gone = [node for node in plan.nodes.values() if node.stage == "train_llm"]
    for node in gone:
        (copied / node.path / "manifest.json").unlink()
    listed = {entry["folder"] for entry in catalogue(report_of(plan, copied))["artifacts"]}
    # The corpus is still reached by the SAEs that were trained on it.
    assert listed == {n.path for n in plan.nodes.values()} - {n.path for n in gone}


def test_the_summary_publishes_it_whole_beside_its_tables(
    plan: Plan, results: Path, tmp_path: Path
) -> None:
    copied = tmp_path / "results"
    shutil.copytree(results, copied)
    report = report_of(plan, copied)
    for name in (*TABLES, HEADLINE):
        (report / name).touch()
    (copied / "catalogue.json").write_text("an older one")
    publish_summary(report, copied)
    text = (copied / "catalogue.json").read_text()
    assert text == catalogue_text(report) == catalogue_text(report_of(plan, results))
    assert json.loads(text)["artifacts"]
    assert str(tmp_path) not in text
    assert not [path for path in copied.iterdir() if path.name.startswith(".catalogue")]


def test_a_catalogue_is_of_format_2_and_says_what_its_artifacts_hold(
    plan: Plan, results: Path
) -> None:
    whole = catalogue(report_of(plan, results))
    assert (whole["format"], whole["live"], whole["notes"]) == ("vista catalogue 2", False, [])
    for entry in whole["artifacts"]:
        manifest = json.loads((results / entry["folder"] / "manifest.json").read_bytes())
        assert manifest["digest"].startswith(entry["digest"]) and len(entry["digest"]) == 12
        assert "unreported" not in entry


def manifests_of(plan: Plan) -> dict[str, dict[str, Any]]:
    """What the catalogue reads of the manifests of a plan's artifacts, by folder."""
    return {
        node.path: {
            "stage": node.stage,
            "settings": json.loads(json.dumps(node.settings)),
            "parents": node.input_paths and json.loads(json.dumps(node.input_paths)),
            "digest": node.id.ljust(64, "0"),
        }
        for node in plan.nodes.values()
    }


def facts_of(manifests: dict[str, dict[str, Any]], *reports: str) -> dict[str, dict[str, Any]]:
    listed = catalogue_of(manifests, reports)["artifacts"]
    return {e["folder"]: {k: e[k] for k in (*KEYS, "control") if k in e} for e in listed}


@pytest.mark.parametrize("config", ["smoke", "controls", "interventions", "probing"])
def test_names_say_without_a_report_what_it_says(config: str) -> None:
    """A run that is half done: no fact differs from that of the finished run."""
    plan = load_plan(SMOKE.with_name(f"{config}.yaml"))
    manifests = manifests_of(plan)
    report = f"report/{Path(plan.report).parent.name}"
    reported = facts_of(manifests, report)
    del manifests[report]
    early = facts_of(manifests)
    assert set(early) == set(reported) - {report}
    for folder, facts in early.items():
        for key in facts.keys() & reported[folder].keys():
            assert facts[key] == reported[folder][key], (folder, key)
        if folder.startswith(("latents/", "train_projector/", "label_latents/", "features/")):
            assert facts == reported[folder], folder


def test_latents_of_a_control_are_told_from_those_of_its_point() -> None:
    plan = load_plan(SMOKE.with_name("controls.yaml"))
    report = f"report/{Path(plan.report).parent.name}"
    facts = facts_of(manifests_of(plan), report)
    nodes = [node for node in plan.nodes.values() if node.stage == "latents"]
    scaled = [facts[node.path]["control"] for node in nodes if "unscaled" in node.inputs]
    assert scaled and set(scaled) == {"text_scale"}
    unscaled = [node.inputs["unscaled"] for node in nodes if "unscaled" in node.inputs]
    assert not [node for node in unscaled if "control" in facts[getattr(node, "path")]]  # noqa: B009


def test_what_the_last_report_is_not_made_from_is_marked(plan: Plan, results: Path) -> None:
    manifests = {
        node.path: json.loads((results / node.path / "manifest.json").read_bytes())
        for node in plan.nodes.values()
    }
    report = f"report/{report_of(plan, results).name}"
    old = "latents/dinov2-gemma2-w1-s0-0000000000"
    manifests[old] = {"stage": "latents", "digest": "0" * 64}
    listed = {e["folder"]: e for e in catalogue_of(manifests, [report])["artifacts"]}
    assert [folder for folder, e in listed.items() if e.get("unreported")] == [old]
    assert (listed[old]["encoder"], listed[old]["sae_weight"]) == ("dinov2", 1.0)
    del listed[old]
    assert list(listed.values()) == catalogue(results / report)["artifacts"]
