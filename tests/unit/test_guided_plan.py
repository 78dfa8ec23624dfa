"""Guided dictionaries in the plan: their stages, their counterparts, ids that they leave alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from vista.engine.node import Node
from vista.engine.plan import load_plan
from vista.errors import UserError


def nodes(folder: Path, saes: dict[str, Any]) -> list[Node]:
    """The nodes of a small run with these vision SAEs."""
    content = {
        "name": "guided",
        "data": {"kind": "drawn"},
        "encoders": {"e": {"source": {"kind": "standin", "family": "dinov2"}}},
        "vision_saes": saes,
        "metrics": {},
        "probing": {"guided_latents": {}},
    }
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(content))
    return list(load_plan(path).nodes.values())


def by_name(found: list[Node], stage: str) -> dict[str, Node]:
    return {node.name: node for node in found if node.stage == stage}


def test_a_guided_sae_is_measured_beside_its_counterparts(tmp_path: Path) -> None:
    found = nodes(
        tmp_path,
        {"plain": {}, "guided": {"guide": {}}, "shuffled": {"guide": {"shuffle_labels": True}}},
    )
    plain = by_name(found, "train_vision_sae")["e-plain"]
    guided = by_name(found, "train_guided_sae")
    assert set(guided) == {"e-guided", "e-shuffled"}
    (measured,) = by_name(found, "guided_latents").values()
    assert measured.inputs["sae"] is not measured.inputs["shuffled"]
    assert measured.inputs["sae"].path == guided["e-guided"].path
    assert measured.inputs["shuffled"].path == guided["e-shuffled"].path
    assert measured.inputs["plain"].path == plain.path
    # What is not guided is the artifact that it was.
    alone = nodes(tmp_path, {"plain": {}, "guided": {"guide": {"left_out": 1}}})
    assert by_name(alone, "train_vision_sae")["e-plain"].path == plain.path
    assert by_name(alone, "train_guided_sae")["e-guided"].path != guided["e-guided"].path


def test_how_latents_are_named_does_not_concern_training(tmp_path: Path) -> None:
    paths = {
        by_name(
            nodes(tmp_path, {"plain": {}, "guided": {"guide": {"name_latents": named}}}),
            "train_guided_sae",
        )["e-guided"].path
        for named in (True, False)
    }
    assert len(paths) == 1


def test_a_guided_sae_without_a_counterpart_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the same SAE without a guide"):
        nodes(tmp_path, {"plain": {"train": {"k": 4}}, "guided": {"guide": {}}})
