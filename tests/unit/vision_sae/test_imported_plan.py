"""An imported vision SAE in the plan: a node of its own kind, read as one that is trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from vista.config.vision_sae import ImportVisionSaeSettings
from vista.engine.forecast.missing import missing
from vista.engine.forecast.shapes import Shapes
from vista.engine.node import Node
from vista.engine.plan import Plan, parse_config
from vista.errors import UserError
from vista.stages import fetch_model, import_vision_sae

ROOT = Path(__file__).parents[3]


@pytest.fixture
def content(tmp_path: Path) -> dict[str, Any]:
    whole: dict[str, Any] = yaml.safe_load((ROOT / "config/smoke.yaml").read_text())
    whole |= {"interventions": None, "metrics": {}, "results": str(tmp_path / "results")}
    released = {"format": "sae_for_vlm", "path": str(tmp_path / "ae.pt")}
    whole["vision_saes"] = {"ours": {}, "theirs": {"import": released}}
    whole["probing"] = {"latent_probes": {}, "encoders": [next(iter(whole["encoders"]))]}
    return whole


def nodes(content: dict[str, Any], stage: str) -> dict[str, Any]:
    plan = Plan(parse_config(content))
    return {
        node.name.rpartition("-")[2]: node for (at, _), node in plan.nodes.items() if at == stage
    }


def test_both_are_checked_and_probed(content: dict[str, Any], tmp_path: Path) -> None:
    assert set(nodes(content, "train_vision_sae")) == {"ours"}
    theirs = nodes(content, "import_vision_sae")["theirs"]
    assert theirs.files == (str(tmp_path / "ae.pt"),) and "fetched" not in theirs.inputs
    # Of settings that came later, none is part of its id.
    assert set(theirs.settings["sae"]) == {
        *("format", "path", "standardise", "split", "subtract_decoder_bias"),
    }
    assert (
        "device" not in theirs.settings["sae"] and "vista.sae.architectures.gated" in theirs.modules
    )
    probes = nodes(content, "latent_probes")
    assert probes["theirs"].inputs["sae"].id == theirs.id
    assert set(probes["ours"].inputs) == {"features", "records", "sae", "check"}
    (tmp_path / "config.json").write_text("{}")
    assert nodes(content, "import_vision_sae")["theirs"].files[1:] == (
        str(tmp_path / "config.json"),
    )
    # Of a step of dictionary_learning's training, the config is one folder up.
    step = ImportVisionSaeSettings(
        format="sae_for_vlm", path=str(tmp_path / "checkpoints" / "ae_1.pt")
    )
    assert step.files[1:] == (str(tmp_path / "config.json"),)
    content["metrics"] = {"sae_stability": {}}
    (compared,) = nodes(content, "sae_stability").values()
    assert [entry["train"] is None for entry in compared.settings["dictionaries"]] == [False, True]


def test_a_repository_is_fetched_first(content: dict[str, Any], tmp_path: Path) -> None:
    released = {"format": "saev", "repo": "maker/SAE_x-1.5", "revision": "main", "file": "a/sae.pt"}
    content["vision_saes"]["theirs"] = {"import": released}
    content["vision_saes"]["standard"] = {"import": {**released, "standardise": True}}
    plan = Plan(parse_config(content))
    (fetch,) = (node for node in plan.nodes.values() if node.stage == "fetch_model")
    assert fetch.name == "SAE_x-1.5"
    assert fetch.settings == {key: released[key] for key in ("repo", "revision", "file")}
    found = [node for node in plan.nodes.values() if node.stage == "import_vision_sae"]
    assert len(found) == 2 and not any(node.files for node in found)
    inputs = [node.inputs["fetched"] for node in found]
    assert all(isinstance(node, Node) and node.id == fetch.id for node in inputs)
    shapes = Shapes(tmp_path, plan.nodes.values())
    lines = "".join(missing(shapes))
    assert "repository maker/SAE_x-1.5 is not pinned (revision 'main')" in lines
    # Disk is known once the file is there.
    assert fetch_model.need(fetch, shapes).disk is None
    assert import_vision_sae.need(found[0], shapes).disk is None
    weights = tmp_path / fetch.path / "model/a/sae.pt"
    weights.parent.mkdir(parents=True)
    weights.write_bytes(b"12345")
    assert import_vision_sae.need(found[0], shapes).disk == 5
    del content["vision_saes"]["standard"]
    released["revision"] = "0" * 40
    (pinned,) = nodes(content, "fetch_model").values()
    assert pinned.id != fetch.id


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({}, r"theirs\.import: .*give either `path` \(a file\) or `repo`"),
        ({"path": "a", "repo": "b/c", "revision": "d", "file": "e"}, "give either `path`"),
        ({"repo": "b/c", "file": "e"}, "`repo` needs a `revision`"),
        ({"repo": "b/c", "revision": "d"}, "`repo` and `file`, its weights there, belong together"),
        ({"path": "a", "file": "e"}, "`repo` and `file`, its weights there, belong together"),
        ({"path": "a", "revision": "d"}, "`revision` belongs to `repo`"),
    ],
)
def test_one_place_is_named(content: dict[str, Any], source: dict[str, str], message: str) -> None:
    content["vision_saes"]["theirs"] = {"import": {"format": "saev", **source}}
    with pytest.raises(UserError, match=message):
        parse_config(content)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"train": {}}, r"vision_saes\.theirs: .*give `train` or `import`, not both"),
        ({"import": {"format": "other", "path": "a"}}, r"vision_saes\.theirs\.import\.format"),
        ({"import": {"format": "prisma", "path": "a", "standardise": True}}, "how they normalise"),
        (
            {"import": {"format": "saev", "path": "a", "standardise": True, "split": "test"}},
            r"vision_saes\.theirs\.import\.split and images that `probing` judges on are",
        ),
    ],
)
def test_what_does_not_fit_is_refused(
    content: dict[str, Any], entry: dict[str, Any], message: str
) -> None:
    content["vision_saes"]["theirs"] = content["vision_saes"]["theirs"] | entry
    with pytest.raises(UserError, match=message):
        parse_config(content)
