"""The labels by steering in the plan: which points they are made at, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from vista.config.reading import parse_config
from vista.engine.forecast.need import UNKNOWN
from vista.engine.forecast.needs import node_need
from vista.engine.forecast.shapes import Shapes
from vista.engine.node import Node
from vista.engine.plan import load_plan
from vista.errors import UserError

ROOT = Path(__file__).parents[2]


@pytest.fixture
def content() -> dict[str, Any]:
    whole = yaml.safe_load((ROOT / "config" / "default.yaml").read_text())
    whole |= {"interventions": None, "metrics": {}, "vision_saes": {"a": {}, "b": {}}}
    sweep = {"encoders": ["dinov2", "clip"], "llms": ["gemma2"], "sae_weights": [0, 1]}
    whole["sweep"] = [{**sweep, "seeds": [0, 1]}]
    whole["probing"] = {"vision_labels": {}}
    return whole


def nodes(content: dict[str, Any], stage: str = "vision_labels") -> list[Node]:
    return [node for node in load_plan(content).nodes.values() if node.stage == stage]


def test_each_sae_is_labelled_at_each_point_of_its_encoder(content: dict[str, Any]) -> None:
    assert len(nodes(content)) == 2 * 2 * 2 * 2  # encoders, SAEs, weights, seeds
    content["probing"] = {
        "vision_labels": {
            "encoders": ["clip"],
            "vision_saes": ["b"],
            "sae_weights": [1],
            "seeds": [0],
        }
    }
    (metric,) = nodes(content)
    (steering,) = [node for node in metric.parents() if node.stage == "label_by_steering"]
    assert metric.inputs["steering"] is steering
    assert set(metric.inputs) == {"sae", "labels", "steering", "features", "records"}
    # Where a metric is measured is no part of what it measures.
    assert set(metric.settings) == {"split", "min_images", "bootstrap", "sae"}
    for role in ("sae", "labels", "features"):
        assert steering.inputs[role] is metric.inputs[role]
    features, projector = steering.inputs["features"], steering.inputs["projector"]
    assert isinstance(features, Node)
    assert isinstance(projector, Node)
    assert (projector.name, projector.inputs["features"]) == ("clip-gemma2-w1-s0", features)
    # The blank image goes through the same encoder, read in the same way.
    assert steering.inputs["encoder"] is features.inputs["encoder"]
    assert steering.settings["encoder"] == features.settings["encoder"]
    assert steering.modules == features.modules == ("vista.encoders.families.clip",)
    report = next(iter(nodes(content, "report")))
    (point,) = [p for p in report.settings["points"] if p["metric"] == "vision_labels"]
    assert (point["encoder"], point["method"], point["sae_weight"]) == ("clip", "b", 1)


def test_a_batch_is_no_other_label_and_what_is_scored_is_no_other_steering(
    content: dict[str, Any],
) -> None:
    before = {node.path for node in nodes(content, "label_by_steering")}
    content["probing"] = {"vision_labels": {"steering": {"batch_size": 2}, "min_images": 9}}
    assert {node.path for node in nodes(content, "label_by_steering")} == before
    content["probing"] = {"vision_labels": {"steering": {"blank": "mean"}}}
    assert not {node.path for node in nodes(content, "label_by_steering")} & before


def test_encoders_of_all_experiments_need_no_point_each(content: dict[str, Any]) -> None:
    content["encoders"]["early"] = {**content["encoders"]["clip"], "layer": 0}
    probing = {"encoders": ["clip", "early"], "vision_saes": ["a"], "vision_labels": {}}
    content["probing"] = probing
    assert {node.inputs["features"].name for node in nodes(content)} == {"clip"}  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"encoders": ["early"]},
            "reads a projector of encoder 'early', and the sweep has no such point",
        ),
        ({"seeds": [7]}, "and the sweep has no such point; add one, or correct"),
        ({"encoders": ["both"]}, "'both' is combined; name others in probing.vision_labels"),
        ({"encoders": ["vgg"]}, "probing.vision_labels.encoders names 'vgg'"),
        ({"vision_saes": ["c"]}, "probing.vision_labels.vision_saes names 'c'"),
        ({"split": "train"}, "vision_saes.a.train.split and images that `probing` judges on"),
        ({"steering": {"coefficients": [1, 1]}}, "coefficients names one value twice"),
        ({"steering": {"coefficients": []}}, "coefficients"),
        ({"steering": {"blank": "grey"}}, "blank"),
    ],
)
def test_what_cannot_be_labelled_is_refused(
    content: dict[str, Any], changes: dict[str, Any], expected: str
) -> None:
    content["encoders"]["early"] = {**content["encoders"]["clip"], "layer": 0}
    both = {"kind": "combined", "encoders": ["dinov2", "clip"]}
    content["encoders"]["both"] = {"source": both}
    content["probing"] = {
        "encoders": ["dinov2", "clip"],
        "vision_labels": {"encoders": ["clip"], **changes},
    }
    with pytest.raises(UserError, match=expected) as refusal:
        parse_config(content)
    assert "\n" not in str(refusal.value)


def test_models_and_saes_are_needed(content: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="vision_labels reads language models, but there are no"):
        parse_config({**content, "llms": {}, "sweep": [{}]})
    with pytest.raises(UserError, match="vision_labels probes SAEs of the encoders' features"):
        parse_config({**content, "vision_saes": {}})


def test_the_forecast_grows_with_latents_and_coefficients(
    content: dict[str, Any], tmp_path: Path
) -> None:
    content["results"] = str(tmp_path)

    def seconds(**steering: Any) -> float:
        content["probing"] = {"vision_labels": {"encoders": ["clip"], "steering": steering}}
        plan = load_plan(content)
        shapes = Shapes(Path(plan.results), plan.nodes.values(), plan.config.threads)
        needs = [
            node_need(next(n for n in plan.nodes.values() if n.stage == stage), shapes)
            for stage in ("label_by_steering", "vision_labels")
        ]
        assert UNKNOWN not in needs
        assert needs[0].seconds is not None
        return needs[0].seconds

    few, more = seconds(latents=64, coefficients=[1]), seconds(latents=64, coefficients=[1, 2, 3])
    start = 5.6
    assert (more - start) / (few - start) == pytest.approx(3)
    assert seconds(latents=None) > seconds(latents=256)
