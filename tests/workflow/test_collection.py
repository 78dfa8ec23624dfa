"""The list of tests is the same in every process: at any time, with any hash seed, in any home."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from workflow_run import ROOT


def collected(home: Path, hash_seed: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "pytest", "--collect-only", "-p", "no:cacheprovider"]
    environment = {**os.environ, "HOME": str(home), "PYTHONHASHSEED": hash_seed}
    environment = {key: value for key, value in environment.items() if "PYTEST_" not in key}
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT,
        env=environment,
    )  # fmt: skip


def test_two_processes_two_seconds_apart_collect_the_same_tests(tmp_path: Path) -> None:
    """Several processes share the tests out by name: they stop where their lists differ."""
    first = collected(tmp_path / "a", "1")
    # Names that hold a time in whole seconds, or in the two seconds of a zip, would differ.
    time.sleep(2.5)
    second = collected(tmp_path / "b", "2")
    lists = []
    for process in (first, second):
        text, _ = process.communicate()
        assert process.returncode == 0, text[-3000:]
        lists.append([line for line in text.splitlines() if "::" in line])
    assert len(lists[0]) > 2000
    assert lists[0] == lists[1]
