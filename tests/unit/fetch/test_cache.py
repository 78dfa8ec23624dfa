"""Repositories for programs: kept between uses, and saved readouts out of them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from fake_hub import FakeHub

from tests.published import publish
from vista.config.encoders import EncoderSettings
from vista.config.language import LanguageSettings
from vista.errors import UserError
from vista.fetch.cache import FOLDER, snapshot
from vista.readout.parts import Parts
from vista.readout.pretrained import open_parts, push_parts, save_parts


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(FOLDER, str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_repository_is_fetched_once(hub: FakeHub, put: Any) -> None:
    put("o/n/config.json", b"{}")
    put("o/n/code.py", b"import os")
    folder = snapshot("o/n", "main", lambda listing: ["config.json"])
    assert (folder / "config.json").read_bytes() == b"{}" and not (folder / "code.py").exists()
    asked = len(hub.requests)
    assert snapshot("o/n", folder.name, lambda listing: ["config.json"]) == folder
    assert len(hub.requests) == asked
    put("o/n/config.json", b"[]")
    moved = snapshot("o/n", "main", lambda listing: ["config.json"])
    assert moved != folder and (moved / "config.json").read_bytes() == b"[]"


@pytest.mark.parametrize("repo", ["../x", "a/../b", "a/b/c", "/etc", "a", ""])
def test_what_is_no_name_of_a_repository_is_refused(hub: FakeHub, repo: str) -> None:
    with pytest.raises(UserError, match="no repository"):
        snapshot(repo, "main", lambda listing: [])
    assert not hub.requests


def saved(root: Path, hub: FakeHub) -> Parts:
    """Parts with an encoder that is published at the hub."""
    commit = hub.commit("eyes/dino")

    def fetched(work: Path) -> None:
        shutil.copytree(hub.root / "eyes" / "dino", work / "model")
        source = {"repo": "eyes/dino", "commit": commit, "revision": "main"}
        (work / "source.json").write_text(json.dumps(source))

    def sae(work: Path) -> None:
        (work / "sae.json").write_text('{"layer": 4}')

    llm = publish(root, "train_llm/gemma2-1", lambda work: (work / "x").write_text("llm"))
    checkpoint = {"kind": "checkpoint", "repo": "eyes/dino", "revision": commit}
    return Parts(
        name="dino-gemma2-w1-s0",
        encoder=EncoderSettings.model_validate({"source": {**checkpoint, "family": "dinov2"}}),
        encoder_model=publish(root, "fetch_model/dino-1", fetched),
        llm=LanguageSettings.model_validate({"source": {"kind": "standin", "family": "gemma2"}}),
        llm_model=llm,
        projector=publish(root, "train_projector/p-1", sae, llm=llm),
        saes=(publish(root, "import_sae/s-1", sae),),
        max_active=8,
    )


def test_a_readout_names_what_is_published_and_fetches_it(
    hub: FakeHub, put: Any, tmp_path: Path, cache: Path
) -> None:
    put("eyes/dino/config.json", b"{}")
    put("eyes/dino/model.safetensors", b"weights")
    save_parts(saved(tmp_path / "results", hub), hub.root / "me" / "readout")
    assert not (hub.root / "me" / "readout" / "encoder").exists()
    (hub.root / "me" / "readout" / "evil.bin").write_bytes(b"pickled")
    loaded = open_parts("me/readout")
    folder = Path(str(getattr(loaded.encoder.source, "path", "")))
    assert folder.is_relative_to(cache) and (folder / "model.safetensors").is_file()
    assert loaded.encoder_model is None and not list(cache.rglob("evil.bin"))
    copied = saved(tmp_path / "other", hub)
    save_parts(copied, tmp_path / "copied", copy_models=True)
    assert open_parts(tmp_path / "copied").encoder_model is not None


def test_a_readout_is_pushed_with_the_token_of_the_environment(
    hub: FakeHub, put: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import HfApi

    put("eyes/dino/config.json", b"{}")
    sent: dict[str, Any] = {}

    def upload(api: HfApi, repo_id: str, folder_path: Path) -> Any:
        sent.update(token=api.token, repo=repo_id, files={p.name for p in folder_path.iterdir()})
        return type("Commit", (), {"commit_url": "https://hub/c"})

    monkeypatch.setattr(HfApi, "create_repo", lambda api, repo, **given: sent.update(given))
    monkeypatch.setattr(HfApi, "upload_folder", upload)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert push_parts(saved(tmp_path / "results", hub), "me/eye", True, None) == "https://hub/c"
    assert sent["token"] == "hf_secret" and sent["private"] is True
    assert {"README.md", "readout.json", "projector", "sae_4", "llm"} == sent["files"]
