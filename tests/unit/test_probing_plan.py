"""What a config's probing experiments read, and what is refused before anything runs."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from vista.config.reading import parse_config
from vista.errors import UserError
from vista.plan import load_plan

ROOT = Path(__file__).parents[2]
FILES = {"kind": "folder", "images": "real", "classes": True, "splits": {"test": "all"}}


@pytest.fixture
def content() -> dict[str, Any]:
    whole = yaml.safe_load((ROOT / "config" / "default.yaml").read_text())
    whole |= {"interventions": None, "metrics": {}, "vision_saes": {"a": {}, "b": {}}}
    whole["probing"] = {
        "data": {"far": FILES, "shift": {"kind": "drawn", "noise": 20}},
        "monosemanticity": {},
        "ood_detection": {"far": ["far"]},
        "ood_generalization": {"shifts": ["shift"]},
        "ontology": {},
        "shared_latents": {},
    }
    return whole


def test_each_sae_of_each_encoder_is_probed_once(content: dict[str, Any]) -> None:
    plan = load_plan(content)
    encoders = len(content["encoders"])
    for stage in ("monosemanticity", "ood_detection", "ood_generalization", "ontology"):
        assert sum(node.stage == stage for node in plan.nodes.values()) == 2 * encoders
    for node in plan.nodes.values():
        if node.stage == "ood_detection":
            (far,), (records,) = node.inputs["set_features"], node.inputs["set_records"]  # type: ignore[misc]
            assert far.inputs["records"] is records
            # The same encoder reads all images.
            assert far.inputs["encoder"] is node.inputs["features"].inputs["encoder"]  # type: ignore[union-attr]
        if node.stage == "monosemanticity":
            own, other = node.inputs["features"], node.inputs["other"]
            assert own.inputs["encoder"] is not other.inputs["encoder"]  # type: ignore[union-attr]


def test_another_set_is_new_work_for_what_reads_it_alone(content: dict[str, Any]) -> None:
    before = {node.path for node in load_plan(content).nodes.values()}
    more = copy.deepcopy(content)
    more["probing"]["data"]["near"] = {**FILES, "images": "near"}
    more["probing"]["ood_detection"]["near"] = ["near"]
    new = [n.stage for n in load_plan(more).nodes.values() if n.path not in before]
    encoders = len(content["encoders"])
    expected = ["records", *["features"] * encoders, *["ood_detection"] * 2 * encoders, "report"]
    assert sorted(new) == sorted(expected)


def test_vision_models_are_probed_without_a_language_model(content: dict[str, Any]) -> None:
    content |= {"llms": {}, "sweep": [{}]}
    del content["probing"]["shared_latents"]
    assert not any(n.stage in ("text", "train_llm") for n in load_plan(content).nodes.values())


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"ood_detection": {"far": ["sky"]}},
            "ood_detection.far names 'sky'; probing.data has far",
        ),
        ({"ood_detection": {"far": ["far"], "near": ["far"]}}, "stands under `near` and `far`"),
        ({"ood_detection": None}, "probing.data.far is read by no experiment"),
        ({"encoders": ["vgg"]}, "probing.encoders names 'vgg'"),
        ({"vision_saes": ["c"]}, "probing.vision_saes names 'c'; vision_saes has a, b"),
        ({"monosemanticity": {"judged_by": "vgg"}}, "judged_by is 'vgg'"),
        ({"monosemanticity": {"split": "train"}}, "vision_saes.a.train.split and images that"),
        (
            {"ood_detection": {"far": ["far"], "split": "validation"}},
            "ood_detection.far reads split 'validation', but probing.data.far has no such images",
        ),
    ],
)
def test_what_would_mislead_is_refused(
    content: dict[str, Any], changes: dict[str, Any], expected: str
) -> None:
    content["probing"] |= changes
    with pytest.raises(UserError, match=expected):
        parse_config(content)


def test_vision_saes_are_needed(content: dict[str, Any]) -> None:
    content["vision_saes"] = {}
    with pytest.raises(UserError, match=r"monosemanticity probes SAEs .* no `vision_saes`"):
        parse_config(content)
