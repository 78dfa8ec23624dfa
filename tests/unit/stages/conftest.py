"""What tests of stages share."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results folder; stages run with one thread."""
    torch.set_num_threads(1)
    return tmp_path_factory.mktemp("results")
