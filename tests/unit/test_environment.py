"""The environment that a job gives its numeric libraries."""

from __future__ import annotations

import os

import pytest

from vista.engine.environment import prepare


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
