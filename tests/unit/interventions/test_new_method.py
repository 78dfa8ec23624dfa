"""A method of finding directions is one file: planned, checked and run by its name."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from planted_words import NOUNS, find, read

from vista.config import edits
from vista.engine.plan import load_plan
from vista.errors import UserError
from vista.interventions import methods

CONFIG = Path(__file__).parents[3] / "config" / "interventions.yaml"
NORTH = """
import numpy as np

from vista.interventions.directions import ConceptDirection, Directions
from vista.interventions.method import DirectionMethod


def find(search):
    selection = search.select()
    rows_cd = np.zeros((len(selection.names), search.loaders.llm_width()), np.float32)
    rows_cd[:, 0] = 1
    concepts = tuple(ConceptDirection(name, True, 1, norm=1.0) for name in selection.names)
    return Directions(search.settings.method, "stream", concepts, rows_cd)


METHOD = DirectionMethod(find, reads=("llm", "projector"), has_block=False)
"""


@pytest.fixture
def north(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The method `north`, in a file beside the others'."""
    folder = tmp_path / "methods"
    shutil.copytree(edits._METHODS, folder)
    (folder / "north.py").write_text(NORTH)
    monkeypatch.setattr(edits, "_METHODS", folder)
    monkeypatch.setattr(methods, "__path__", [*methods.__path__, str(folder)])


def planned(**edit: Any) -> Any:
    content = yaml.safe_load(CONFIG.read_text())
    entry = {"directions": {"method": "north"}, "removal": edit}
    content["interventions"]["methods"] = {"up": entry}
    return load_plan(content)


@pytest.mark.usefixtures("north")
def test_a_new_file_is_a_method_that_can_be_planned() -> None:
    nodes = [node for node in planned().nodes.values() if node.stage == "directions"]
    assert nodes
    for node in nodes:
        assert set(node.inputs) == {"records", "features", "llm", "projector"}
        assert node.modules[0] == "vista.interventions.methods.north"
        assert node.name.endswith("-up") and node.inputs["projector"].name in node.name


@pytest.mark.usefixtures("north")
def test_edits_are_checked_against_what_a_new_method_declares() -> None:
    with pytest.raises(UserError, match=r"up\.removal\.blocks is null, but directions of method"):
        planned(blocks=None)
    with pytest.raises(UserError, match="`tokens: active`, but directions of method north"):
        planned(tokens=["active"])


@pytest.mark.usefixtures("north")
def test_a_new_file_finds_directions(made: dict[str, Any]) -> None:
    directions = read(find(made, "north"))
    assert (directions.method, directions.names) == ("north", sorted(NOUNS))
    assert np.array_equal(directions.direction_cd, np.eye(1, 32).repeat(len(NOUNS), 0))


def test_without_its_file_a_method_is_unknown() -> None:
    with pytest.raises(UserError, match="method 'north' is unknown; choose one of latent, "):
        planned()
