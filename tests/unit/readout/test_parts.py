"""Parts that belong together, and parts that do not; a saved readout's files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.published import publish
from vista.config.encoders import EncoderSettings
from vista.config.language import LanguageSettings
from vista.engine.artifacts import Artifact
from vista.errors import UserError
from vista.readout.card import model_card
from vista.readout.parts import Parts, parts_of_latents
from vista.readout.pretrained import open_parts, save_parts

ENCODER = EncoderSettings.model_validate({"source": {"kind": "standin", "family": "dinov2"}})
LLM = LanguageSettings.model_validate({"source": {"kind": "standin", "family": "gemma2"}})


def made(root: Path, path: str, text: str = "", **parents: Any) -> Artifact:
    return publish(root, path, lambda work: (work / "sae.json").write_text(text), **parents)


def parts(root: Path, **changes: Any) -> Parts:
    llm = made(root, "train_llm/gemma2-1", "llm")
    saes = [made(root, f"import_sae/s-l{i}-1", json.dumps({"layer": i})) for i in (0, 1)]
    usual: dict[str, Any] = {
        "name": "dinov2-gemma2-w1-s0",
        "encoder": ENCODER,
        "encoder_model": made(root, "train_encoder/dinov2-1", "encoder"),
        "llm": LLM,
        "llm_model": llm,
        "projector": made(root, "train_projector/p-1", "p", llm=llm, saes=saes),
        "saes": tuple(saes),
        "labels": (made(root, "label_latents/s-l0-1", "labels", sae=saes[0]),),
        "max_active": 8,
    }
    return Parts(**(usual | changes))


@pytest.mark.parametrize(
    ("role", "says"),
    [
        ("labels", "labels another SAE"),
        ("directions", "holds directions of another SAE"),
        ("llm_model", "was trained for another language model"),
    ],
)
def test_parts_made_for_others_are_refused(tmp_path: Path, role: str, says: str) -> None:
    sae = made(tmp_path, "import_sae/other-1", json.dumps({"layer": 0, "other": 1}))
    others = {
        "labels": (made(tmp_path, "label_latents/o-1", "o", sae=sae),),
        "directions": made(tmp_path, "directions/o-1", "o", saes=[sae]),
        "llm_model": made(tmp_path, "train_llm/other-1", "o"),
    }
    with pytest.raises(UserError, match=says):
        parts(tmp_path, **{role: others[role]})


def test_a_saved_readout_is_read_as_it_was(tmp_path: Path) -> None:
    saved = parts(tmp_path / "results", question="what <b>is</b> it?")
    save_parts(saved, tmp_path / "saved")
    loaded = open_parts(tmp_path / "saved")
    assert (loaded.name, loaded.question, loaded.max_active) == (saved.name, saved.question, 8)
    assert [sae.digest for sae in loaded.saes] == [sae.digest for sae in saved.saes]
    assert loaded.llm_model is not None and saved.llm_model is not None
    assert loaded.llm_model.digest == saved.llm_model.digest
    with pytest.raises(UserError, match="holds files already"):
        save_parts(saved, tmp_path / "saved")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"format": "vista readout 9"}, "describes no readout of format"),
        ({"digests": {"../../secret": "0"}}, "names a part"),
        ({"digests": {}}, "lacks its part projector"),
        ({"max_active": 0}, "max_active"),
    ],
)
def test_a_description_that_somebody_changed_is_refused(
    tmp_path: Path, change: dict[str, Any], says: str
) -> None:
    save_parts(parts(tmp_path / "results"), tmp_path / "saved")
    path = tmp_path / "saved" / "readout.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(UserError, match=says):
        open_parts(tmp_path / "saved")


def test_what_is_no_saved_readout_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is no saved readout"):
        open_parts(tmp_path)
    with pytest.raises(UserError, match="no folder here, and no repository"):
        open_parts("nowhere")


def test_a_user_s_folder_is_copied_when_asked(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "config.json").write_text("{}")
    (tmp_path / "mine" / "weights.bin").write_text("pickled")
    source = {"kind": "checkpoint", "path": str(tmp_path / "mine")}
    given = parts(
        tmp_path / "results",
        llm=LanguageSettings.model_validate({"source": source}),
        llm_model=None,
    )
    with pytest.raises(UserError, match="copy_models=True"):
        save_parts(given, tmp_path / "saved")
    assert not (tmp_path / "saved").exists()
    save_parts(given, tmp_path / "saved", copy_models=True)
    assert str(tmp_path) not in (tmp_path / "saved" / "readout.json").read_text()
    loaded = open_parts(tmp_path / "saved")
    assert getattr(loaded.llm.source, "path", "") == str(tmp_path / "saved" / "llm" / "model")
    names = [path.name for path in (tmp_path / "saved" / "llm" / "model").iterdir()]
    assert names == ["config.json"]


def test_a_card_shows_untrusted_text_as_text(tmp_path: Path) -> None:
    figure = {"metric": "<img src=x>|", "k": 3, "layer": None, "value": 0.5, "ci_low": 0.4}
    figure |= {"ci_high": 0.6, "chance": None, "n": 7}
    card = model_card(parts(tmp_path, figures=(figure,)), {})
    assert "<img" not in card and "0.400 to 0.600" in card


def test_latents_without_their_projector_are_told(tmp_path: Path) -> None:
    latents = publish(tmp_path, "latents/a-1", lambda work: (work / "x").write_text(""))
    with pytest.raises(UserError, match="its projector is not in these results"):
        parts_of_latents(latents.path)
