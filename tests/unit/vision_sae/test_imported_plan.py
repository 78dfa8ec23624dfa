"""An imported vision SAE in the plan: a node of its own kind, read as one that is trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from vista.engine.plan import Plan, parse_config
from vista.errors import UserError

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
    assert theirs.files == (str(tmp_path / "ae.pt"),)
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
    content["metrics"] = {"sae_stability": {}}
    (compared,) = nodes(content, "sae_stability").values()
    assert [entry["train"] is None for entry in compared.settings["dictionaries"]] == [False, True]


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
