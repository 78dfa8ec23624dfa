"""The one Slurm of all tests here; they are skipped where it is not installed."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from slurm_server import PROGRAMS, Cluster, program, started


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    pytest.importorskip("snakemake_executor_plugin_slurm")
    missing = [name for name in PROGRAMS if program(name) is None]
    if missing:
        pytest.skip(f"Slurm ({', '.join(missing)}; Debian: slurm-wlm, munge) is not here")
    # A short path: a socket's name has at most 108 bytes.
    with tempfile.TemporaryDirectory(prefix="slurm-") as folder, started(Path(folder)) as found:
        yield found
