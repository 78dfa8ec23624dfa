"""The artifacts of controls: what they share with their points, and what is measured of them."""

from __future__ import annotations

from typing import Any

import pytest
from finished_plan import smoke
from pydantic import ValidationError

from vista.config.run import RunConfig
from vista.engine.node import Node
from vista.engine.plan import Plan

ALL = {
    "norm_matched": {},
    "best_scale": {"norms": [1.0]},
    "norm_penalty": {"weights": [0.5]},
    "text_scale": {},
    "random_projector": {},
    "constant_token": {},
    "other_image": {},
    "permuted_patches": {},
    "true_words": {},
}


def plan(controls: dict[str, Any], **block: Any) -> Plan:
    config = smoke()
    names = ("reconstruction", "matching_rate", "localization", "caption")
    config["metrics"] = {name: {} for name in names}
    points = {"encoders": ["dinov2"], "sae_weights": [0, 1], "seeds": [0, 1], **block}
    config["sweep"] = [{**points, "controls": controls}]
    return Plan(RunConfig.model_validate(config))


def of_stage(made: Plan, stage: str) -> dict[str, Node]:
    return {node.name: node for node in made.nodes.values() if node.stage == stage}


def test_controls_change_no_artifact_of_their_points() -> None:
    plain = {node.path for node in plan({}).nodes.values() if node.stage != "report"}
    assert plain < {node.path for node in plan(ALL).nodes.values()}


def test_a_control_without_images_to_take_its_number_from_is_refused_by_the_plan() -> None:
    """Own data without validation images; every other reader of them names another split."""
    files = {"train": {"instances": "t.json", "captions": "t.json"}}
    files["test"] = {"instances": "e.json", "captions": "e.json"}
    content = smoke() | {
        "data": {"kind": "coco", "images": "photos", "splits": files},
        "pretraining": {"kind": "drawn"},
        "metrics": {"reconstruction": {}},
        "sweep": [{"sae_weights": [0, 1], "seeds": [0], "controls": {"norm_matched": {}}}],
    }
    content = {k: v for k, v in content.items() if k not in ("interventions", "probing", "suggest")}
    expected = (
        r"sweep\.controls\.norm_matched\.split reads split 'validation', but data has no such "
        r"images; name another split there, or give it images by data\.splits"
    )
    with pytest.raises(ValidationError, match=expected):
        RunConfig.model_validate(content)
    content["sweep"][0]["controls"] = {"norm_matched": {"split": "train"}}
    RunConfig.model_validate(content)


def test_each_control_stands_at_its_points() -> None:
    made = plan(ALL)
    point = "dinov2-gemma2"
    names = set(of_stage(made, "control_tokens"))
    pairs = [f"{point}-w{weight}-s{seed}" for weight in (0, 1) for seed in (0, 1)]
    at_all = ("random_projector", "constant_token", "other_image", "permuted_patches")
    assert names == {
        *(f"{point}-w1-s{seed}-norm_matched" for seed in (0, 1)),
        *(f"{pair}-{name}" for pair in pairs for name in at_all),
        # It reads no projector.
        f"{point}-w0-s0-true_words",
    }
    assert set(of_stage(made, "choose_scale")) == {f"{pair}-best_scale" for pair in pairs}
    latents = of_stage(made, "latents")
    scaled = latents[f"{point}-w1-s0-text_scale"]
    assert scaled.inputs["unscaled"].path == latents[f"{point}-w1-s0"].path  # type: ignore[union-attr]
    assert scaled.inputs["projector"] is latents[f"{point}-w1-s0"].inputs["projector"]
    matched = of_stage(made, "control_tokens")[f"{point}-w1-s0-norm_matched"]
    projectors = of_stage(made, "train_projector")
    assert matched.inputs["projector"] is projectors[f"{point}-w0-s0"]
    assert matched.inputs["reference"] is projectors[f"{point}-w1-s0"]


def test_a_penalty_trains_projectors_of_its_own() -> None:
    made = plan({"norm_penalty": {"weights": [0.5]}})
    trained = of_stage(made, "train_projector")
    penalised = trained["dinov2-gemma2-w0.5-s0-norm_penalty"]
    assert penalised.settings["sae_term"]["penalises"] == "stream"
    assert penalised.settings["sae_weight"] == 0.5
    assert "sae_term" not in trained["dinov2-gemma2-w1-s0"].settings


def test_what_changes_no_visual_token_is_measured_by_latents_alone() -> None:
    made = plan({"text_scale": {}, "other_image": {}})
    name = "dinov2-gemma2-w1-s0"
    for stage in ("matching_rate", "localization", "reconstruction"):
        assert {f"{name}-text_scale", f"{name}-other_image"} <= set(of_stage(made, stage))
    captions = set(of_stage(made, "caption"))
    assert f"{name}-other_image" in captions
    assert f"{name}-text_scale" not in captions


@pytest.mark.parametrize(
    ("controls", "block", "reason"),
    [
        ({"norm_matched": {}}, {"sae_weights": [1]}, "must name 0 and a positive weight"),
        ({"norm_matched": {}}, {"sae_weights": [0]}, "must name 0 and a positive weight"),
        ({"permuted": {}}, {}, "permuted"),
        ({"best_scale": {"split": "train", "norms": []}}, {}, "at least 1 item"),
    ],
)
def test_controls_that_cannot_be_measured_are_refused(
    controls: dict[str, Any], block: dict[str, Any], reason: str
) -> None:
    with pytest.raises(ValidationError, match=reason):
        plan(controls, **block)


def test_two_blocks_must_agree_on_a_control() -> None:
    config = smoke()
    block = {"encoders": ["dinov2"], "seeds": [0]}
    config["sweep"] = [
        {**block, "controls": {"other_image": {"shuffle_seed": seed}}} for seed in (0, 1)
    ]
    with pytest.raises(ValidationError, match="two different controls 'other_image'"):
        RunConfig.model_validate(config)


def test_the_scale_of_text_stands_beside_every_point_unless_it_is_null() -> None:
    for controls, n in (({}, 4), ({"text_scale": None}, 0)):
        latents = of_stage(plan(controls), "latents")
        scaled = [name for name, node in latents.items() if node.settings.get("text_scale")]
        # The mask's latents of validation images stand apart.
        assert len([name for name in scaled if name.endswith("-text_scale")]) == n
