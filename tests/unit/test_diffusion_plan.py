"""What a config plans around a text-to-image pipeline, and what is refused before anything runs."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from vista.config.reading import parse_config
from vista.engine.plan import load_plan
from vista.errors import UserError

STAGES = ("diffusion_steering", "attribute_discovery")


@pytest.fixture
def content() -> dict[str, Any]:
    return {
        "name": "small",
        "data": {"kind": "drawn"},
        "encoders": {
            name: {"source": {"kind": "standin", "family": name}} for name in ("dinov2", "clip")
        },
        "metrics": {},
        "probing": {
            "data": {"single": {"kind": "drawn", "object_counts": [1, 0, 0]}},
            "diffusion": {"data": "single", "judged_by": "clip"},
            "attributes": {},
        },
    }


def nodes(content: dict[str, Any]) -> dict[str, Any]:
    """The nodes behind the pipeline's figures, by stage."""
    plan = load_plan(content)
    return {node.stage: node for node in plan.nodes.values() if node.stage in STAGES}


def test_the_prompts_sae_comes_from_the_stages_of_vision_saes(content: dict[str, Any]) -> None:
    found = nodes(content)
    for stage in STAGES:
        given = found[stage].inputs
        assert given["sae"].stage == "train_vision_sae"
        for role in ("sae", "check", "labels"):
            assert given[role].inputs["features"] is given[role].inputs["records"]
            assert given[role].inputs["features"] is given["prompts"]
        # The probes' encoder has seen the images, and is not the pipeline's.
        assert given["features"].inputs["encoder"] is given["encoder"]
        assert given["encoder"].settings["family"] == "clip"
        assert given["prompts"].inputs["pipeline"] is given["pipeline"]


def test_a_judge_names_for_discovery_alone(content: dict[str, Any]) -> None:
    before = nodes(content)
    judge = {"kind": "vlm", "source": {"kind": "checkpoint", "repo": "a/vlm", "revision": "0" * 40}}
    content["probing"]["attributes"] = {"judge": judge}
    after = nodes(content)
    found, plain = after["attribute_discovery"], before["attribute_discovery"]
    assert found.modules == (*plain.modules, "vista.judges.kinds.vlm")
    assert found.inputs["judge"].stage == "fetch_model" and "judge" not in plain.inputs
    assert after["diffusion_steering"].path == before["diffusion_steering"].path


def test_a_knob_reruns_what_it_is_of(content: dict[str, Any]) -> None:
    before = {node.path for node in load_plan(content).nodes.values()}

    def new(**changes: Any) -> list[str]:
        other = copy.deepcopy(content)
        other["probing"]["diffusion"] |= changes
        found = load_plan(other).nodes.values()
        return sorted(node.stage for node in found if node.path not in before)

    assert new(steering={"test": 3}) == ["diffusion_steering", "report"]
    # How many images are made at a time is no part of a result.
    assert new(pipeline={"batch_size": 3}) == []
    assert new(pipeline={"steps": 3}) == [*sorted(STAGES), "report"]
    assert "train_diffusion" in new(pipeline={"source": {"kind": "standin", "steps": 3}})
    # It learns from the texts that are its prompts; what names latents is another matter.
    assert "train_diffusion" in new(prompts={"templates": ["{}", "see {}"]})
    assert "train_diffusion" not in new(prompts={"max_word_share": 0.4})


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"diffusion": {"data": "mine"}}, "probing.diffusion.data names 'mine'"),
        ({"diffusion": {"data": "single", "judged_by": "vgg"}}, "probing.diffusion.judged_by is"),
        (
            {"diffusion": {"data": "single", "steering": {"attributes": ["style"]}}},
            "names 'style'; attributes has colour,",
        ),
        ({"diffusion": None, "data": {}}, "reads the pipeline of `diffusion`"),
        (
            {"diffusion": {"data": "single", "prompts": {"templates": ["a photo"]}}},
            "template 'a photo' must have {} once",
        ),
        (
            {"diffusion": {"data": "single", "sae": {"labels": {"by": "patch"}}}},
            "sae.labels.by must be image",
        ),
        (
            {
                "diffusion": {
                    "data": "single",
                    "pipeline": {"source": {"kind": "standin", "channels": [12]}},
                }
            },
            "channels 12",
        ),
    ],
)
def test_what_does_not_fit_is_refused(
    content: dict[str, Any], change: dict[str, Any], complaint: str
) -> None:
    content["probing"] |= change
    with pytest.raises(UserError, match=complaint):
        parse_config(content)


def test_a_pipeline_on_disk_is_not_trained(content: dict[str, Any]) -> None:
    source = {"kind": "checkpoint", "path": "models/sd"}
    content["probing"]["diffusion"]["pipeline"] = {"source": source, "device": "cuda"}
    found = nodes(content)["diffusion_steering"]
    assert "pipeline" not in found.inputs
    assert found.settings["pipeline"]["source"] == source
    assert found.gpus == 1
