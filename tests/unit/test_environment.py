"""The environment that a job gives its numeric libraries, and the pins of the packages."""

from __future__ import annotations

import importlib.metadata
import os
import re
import tomllib
from pathlib import Path

import pytest

from vista.engine.environment import prepare

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", dict(os.environ))


def test_threads_of_a_job_are_those_of_the_workflow_and_sleep_while_they_wait() -> None:
    os.environ["OMP_NUM_THREADS"] = "64"
    os.environ.pop("OMP_WAIT_POLICY", None)
    prepare(3, offline=False)
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    assert {os.environ[name] for name in names} == {"3"}
    assert os.environ["OMP_WAIT_POLICY"] == "PASSIVE"
    os.environ["OMP_WAIT_POLICY"] = "ACTIVE"
    prepare(3, offline=False)
    assert os.environ["OMP_WAIT_POLICY"] == "ACTIVE"


def test_only_a_job_that_may_use_the_network_does() -> None:
    os.environ.pop("HF_HUB_OFFLINE", None)
    prepare(1, offline=False)
    assert "HF_HUB_OFFLINE" not in os.environ
    prepare(1, offline=True)
    assert os.environ["HF_HUB_OFFLINE"] == "1"


def test_the_pins_admit_the_oldest_python_of_the_project() -> None:
    from packaging.specifiers import SpecifierSet

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    oldest = project["requires-python"].removeprefix(">=").split(",")[0] + ".0"
    pins = re.findall(r"^([\w.-]+)==", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    pinned = {name.lower().replace("_", "-") for name in pins}
    refused, checked = [], 0
    for package in importlib.metadata.distributions():
        if package.name.lower().replace("_", "-") in pinned:
            checked += 1
            needs = package.metadata["Requires-Python"] or ""
            if not SpecifierSet(needs).contains(oldest):
                refused.append(f"{package.name} {package.version} needs Python {needs}")
    # Where pip finds no such pin, it searches for other versions for hours.
    assert not refused
    assert checked > len(pinned) / 2
