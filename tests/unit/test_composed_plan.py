"""Composed scenes in a plan: what their nodes read, and what reruns after a change."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from vista.config.reading import parse_config
from vista.engine.forecast.shapes import Shapes
from vista.engine.forecast.shared import classes
from vista.engine.node import Node
from vista.engine.nodes import Builder
from vista.errors import UserError
from vista.stages import compose_scenes

CONFIG = Path(__file__).parents[2] / "config" / "smoke.yaml"


def content(**changes: Any) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(CONFIG.read_text())
    packages = {
        name: {"kind": "pip", "package": name, "version": "1.0", "sha256": "0" * 64}
        for name in ("stamps", "photographs")
    }
    data = {
        "kind": "composed",
        "cutouts": {"map": "nouns.json", "package": "stamps", "folder": "stamps"},
        "grounds": [
            {"package": "photographs", "file": "grass.png", "name": "grass"},
            {"file": "own.png"},
            {"colour": [9, 9, 9]},
        ],
        "scenes": {"train": 50, "validation": 5, "test": 10, "held_out": 7},
        "image_size": 32,
    }
    further = {"packages": packages, "pretraining": {"kind": "drawn"}, "data": {**data, **changes}}
    return {**loaded, **further}


def scenes(**changes: Any) -> Node:
    return Builder(parse_config(content(**changes))).data.images["world"]


def test_scenes_read_their_packages_and_the_users_files() -> None:
    builder = Builder(parse_config(content()))
    node = builder.data.images["world"]
    assert (node.stage, node.name) == ("compose_scenes", "composed-nouns")
    assert node.inputs == {"packages": (builder.package("stamps"), builder.package("photographs"))}
    assert node.settings["cutouts"]["package"] == "0"
    assert [ground["package"] for ground in node.settings["grounds"]] == ["1", None, None]
    assert node.files == ("nouns.json", "own.png")
    records = builder.data.records
    assert (records.inputs, records.files) == ({"world": node}, ())
    assert records.settings == {"kind": "composed", "question": "Describe the image."}


def test_what_packages_are_called_is_no_part_of_the_scenes_id() -> None:
    named = content()
    packages, data = named["packages"], named["data"]
    renamed = {
        **named,
        "packages": {"a": packages["photographs"], "b": packages["stamps"]},
        "data": {
            **data,
            "cutouts": {**data["cutouts"], "package": "b"},
            "grounds": [{**data["grounds"][0], "package": "a"}, *data["grounds"][1:]],
        },
    }
    assert Builder(parse_config(renamed)).data.images["world"].id == scenes().id
    swapped = {"b": packages["photographs"], "a": packages["stamps"]}
    other = Builder(parse_config({**renamed, "packages": swapped})).data.images["world"]
    assert other.id != scenes().id


def test_another_question_composes_no_scene() -> None:
    asked = Builder(parse_config(content(question="What?")))
    assert asked.data.images["world"].id == scenes().id
    assert asked.data.records.id != Builder(parse_config(content())).data.records.id


def test_other_settings_compose_other_scenes() -> None:
    changes: list[dict[str, Any]] = [{}, {"seed": 1}, {"nouns": ["cat", "dog"]}, {"pair_share": 0}]
    assert len({scenes(**change).id for change in changes}) == len(changes)


def test_a_package_that_is_not_there_is_refused() -> None:
    with pytest.raises(UserError, match=r"data\.grounds\.0\.package names 'x'"):
        parse_config(content(grounds=[{"file": "a.png", "package": "x"}]))
    with pytest.raises(UserError, match=r"data\.cutouts\.package names 'x'"):
        parse_config(content(cutouts={"map": "m.json", "package": "x"}))


def test_the_forecast_counts_held_out_scenes_as_test_images(tmp_path: Path) -> None:
    builder = Builder(parse_config(content()))
    shapes = Shapes(tmp_path, [])
    images = shapes.images(builder.data.records)
    assert images is not None
    assert images.rows == {"train": 50, "validation": 5, "test": 17}
    assert classes(builder.features["dinov2"]) == 100
    named = Builder(parse_config(content(nouns=["cat", "dog"])))
    assert classes(named.features["dinov2"]) == 2
    assert compose_scenes.need(scenes(), shapes).disk == 3 * 32 * 32 * 72
