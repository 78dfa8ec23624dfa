from __future__ import annotations

import os

import pytest


@pytest.fixture(autouse=True)
def _no_fsync(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spare the disk: milliseconds a file, and no test here pulls the plug."""
    monkeypatch.setattr(os, "fsync", lambda _: None)
