"""A hub on the loopback for the fetch stages, and short pauses between their tries."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_hub import FakeHub

from vista.engine.job import Job
from vista.fetch import download


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """An empty hub that this process takes for huggingface.co and for Neuronpedia's bucket."""
    from huggingface_hub import constants

    monkeypatch.setattr(download, "FIRST_PAUSE", 0.001)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no token"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with FakeHub(tmp_path / "hub") as hub:
        for name, value in hub.env.items():
            monkeypatch.setenv(name, value)
        # Read from the environment when the library was imported.
        template = f"{hub.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        yield hub


@pytest.fixture
def put(hub: FakeHub) -> Callable[[str, bytes], Path]:
    """Put a file on the hub."""

    def put(name: str, content: bytes) -> Path:
        path = hub.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path

    return put


@pytest.fixture
def job(tmp_path: Path) -> Callable[..., Job]:
    """A job of a stage; a second one of the same name finds what the first left behind."""

    def job(stage: str, **settings: Any) -> Job:
        work = tmp_path / "work" / stage
        work.mkdir(parents=True, exist_ok=True)
        return Job(stage, settings, {}, work)

    return job
