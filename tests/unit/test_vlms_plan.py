"""Vision-language models in a config: what an entry of `vlms` stands for, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.tiny_vlms import TEXT, save_vlm
from vista.config.projector import OwnProjector
from vista.config.reading import parse_config
from vista.config.sweep import Point
from vista.engine.forecast.model_shapes import vision_shape
from vista.engine.node import Node
from vista.engine.plan import load_plan
from vista.errors import UserError

CONFIGS = Path(__file__).parents[2] / "config"
SOURCE = {"kind": "checkpoint", "path": "models/gemma"}
OWN = Point("gemma", "gemma", 0.0, 0)


def config(**changes: Any) -> dict[str, Any]:
    """The default config of one encoder and one LLM, with a vision-language model."""
    content: dict[str, Any] = yaml.safe_load((CONFIGS / "default.yaml").read_text())
    content["encoders"] = {"dinov2": content["encoders"]["dinov2"]}
    content["llms"] = {"gemma2": content["llms"]["gemma2"]}
    content["sweep"] = [{"sae_weights": [0, 1], "seeds": [0]}]
    saes = {"layers": [1], "pretrained": {"path": "saes/{layer}"}}
    content["vlms"] = {"gemma": {"model": {"source": SOURCE}, "saes": saes}}
    return {**content, **changes}


def nodes_of(content: dict[str, Any]) -> dict[tuple[str, str], Node]:
    return {(node.stage, node.name): node for node in load_plan(content).nodes.values()}


def test_an_entry_is_one_point_beside_those_of_the_sweep() -> None:
    points = parse_config(config()).points()
    assert points == {
        Point("dinov2", "gemma2", 0.0, 0): None,
        Point("dinov2", "gemma2", 1.0, 0): None,
        OWN: OwnProjector(),
    }


def test_its_nodes_read_the_checkpoint_and_train_nothing() -> None:
    nodes = nodes_of(config())
    features = nodes["features", "gemma"]
    assert features.settings["encoder"]["source"]["family"] == "vlm"
    assert features.settings["encoder"]["source"]["path"] == SOURCE["path"]
    assert features.modules == ("vista.encoders.families.vlm",)
    projector = nodes["import_projector", "gemma-gemma-w0-s0"]
    assert projector.settings["projector"] == {"kind": "identity"}
    assert projector.files == ()
    latents = nodes["latents", "gemma-gemma-w0-s0"]
    assert latents.settings["llm"]["placement"] == "image"
    assert latents.inputs["projector"] is projector
    assert ("matching_rate", "gemma-gemma-w0-s0") in nodes
    trained = {name for stage, name in nodes if stage == "train_projector"}
    assert trained == {"dinov2-gemma2-w0-s0", "dinov2-gemma2-w1-s0"}


def test_other_nodes_keep_their_ids() -> None:
    without = config()
    del without["vlms"]
    ids = {key: node.id for key, node in nodes_of(config()).items()}
    others = {key: node.id for key, node in nodes_of(without).items() if key[0] != "report"}
    # It reads the labels of all SAEs of the run.
    changed = {key for key, value in others.items() if ids.get(key) != value}
    assert {stage for stage, _ in changed} <= {"judge_agreement"}


def test_a_run_of_vlms_alone_has_their_points_alone() -> None:
    content = config()
    content["pretraining"] = content["data"]
    for key in ("encoders", "llms", "sweep", "vision_saes", "interventions", "probing"):
        content.pop(key, None)
    assert list(parse_config(content).points()) == [OWN]


def test_the_forecast_counts_visual_tokens_of_the_language_models_width(tmp_path: Path) -> None:
    for kind, tokens in (("gemma3", 4), ("llava", 16)):
        save_vlm(kind, tmp_path / kind)
        shape = vision_shape(tmp_path / kind)
        assert shape is not None
        assert (shape.d_vision, shape.patches) == (TEXT["hidden_size"], tokens)
        assert 16 <= shape.patches + shape.prefix <= 17


def refused(content: dict[str, Any]) -> str:
    with pytest.raises(UserError) as caught:
        parse_config(content)
    return str(caught.value)


def test_what_has_no_effect_or_two_meanings_is_refused() -> None:
    content = config()
    content["sweep"] = [{"encoders": ["gemma"]}]
    assert "sweep names 'gemma'; encoders has dinov2" in refused(content)
    content = config()
    content["llms"]["gemma"] = content["llms"]["gemma2"]
    assert "vlms.gemma and llms.gemma have one name" in refused(content)
    content = config()
    content["vlms"]["gemma"]["model"]["placement"] = "in_question"
    assert "`model.placement` has no effect" in refused(content)
    content = config()
    content["vlms"]["gemma"]["model"]["source"] = {"kind": "standin", "family": "llama"}
    assert "a vision-language model is a checkpoint" in refused(content)
    content = config()
    del content["encoders"], content["vlms"]
    assert "key encoders is missing, and so is vlms" in refused(content)
