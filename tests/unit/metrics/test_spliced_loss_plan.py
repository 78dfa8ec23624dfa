"""Loss recovered in the plan, and its forecast."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from vista.engine.forecast.need import TORCH_START
from vista.engine.forecast.needs import node_need
from vista.engine.forecast.shapes import Shapes
from vista.engine.node import Node
from vista.engine.plan import Plan, load_plan
from vista.errors import UserError

DEFAULT = Path(__file__).parents[3] / "config" / "default.yaml"


@pytest.fixture
def content(tmp_path: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(DEFAULT.read_text())
    return loaded | {"results": str(tmp_path)}


def planned(plan: Plan) -> list[Node]:
    return [node for node in plan.nodes.values() if node.stage == "spliced_loss"]


def test_it_waits_for_saes_that_pass_their_check(content: dict[str, Any]) -> None:
    nodes = planned(load_plan(content))
    # Of the points, and of the controls that change visual tokens.
    assert len(nodes) == 8 + 9
    for node in nodes:
        saes, checks = node.inputs["saes"], node.inputs["checks"]
        assert isinstance(saes, tuple)
        assert isinstance(checks, tuple)
        assert [check.inputs["sae"] for check in checks] == list(saes)
        assert [sae.settings["layer"] for sae in saes] == [0, 1, 2]
        assert node.order["spliced_loss"]["mean_split"] == "validation"


def test_the_size_of_a_batch_is_no_part_of_its_id(content: dict[str, Any]) -> None:
    before = {node.path for node in planned(load_plan(content))}
    content["metrics"]["spliced_loss"] = {"batch_size": 3}
    assert {node.path for node in planned(load_plan(content))} == before
    content["metrics"]["spliced_loss"] = {"mean_images": 3}
    assert not {node.path for node in planned(load_plan(content))} & before


def test_a_split_without_images_is_refused_before_anything_runs(content: dict[str, Any]) -> None:
    content["data"] = {
        "kind": "coco",
        "images": "photos",
        "files": {"instances": "i.json", "captions": "c.json"},
        "fractions": {"train": 0.5, "validation": 0, "test": 0.5},
    }
    content |= {"pretraining": {"kind": "drawn"}, "interventions": None}
    with pytest.raises(
        UserError, match=r"metrics\.spliced_loss\.mean_split reads split 'valid"
    ) as no:
        load_plan(content)
    assert "name another split there, or give it images by data.fractions" in str(no.value)
    content["metrics"]["spliced_loss"] = {"mean_split": "train"}
    content["sweep"] = [{"sae_weights": [0]}]
    load_plan(content)


def seconds(content: dict[str, Any], **settings: Any) -> float:
    plan = load_plan({**content, "metrics": {"spliced_loss": settings}})
    shapes = Shapes(Path(plan.results), plan.nodes.values(), plan.config.threads)
    need = node_need(planned(plan)[0], shapes)
    assert need.seconds is not None
    assert need.memory == 0
    return need.seconds - TORCH_START


def test_its_time_grows_with_the_layers_and_the_images(content: dict[str, Any]) -> None:
    whole = seconds(content)
    content["llms"]["gemma2"]["saes"]["layers"] = [0]
    # One pass and three a layer: 4 of 10. The mean and the SAEs are small beside them.
    assert seconds(content) == pytest.approx(0.4 * whole, rel=0.15)
    assert seconds(content, mean_images=1) < seconds(content)
