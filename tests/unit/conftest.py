"""What several unit tests share."""

from __future__ import annotations

from pathlib import Path

import pytest
from finished_plan import publish_all, smoke

from vista.engine.plan import load_plan


@pytest.fixture(scope="session")
def finished_smoke(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of the smoke config; to be copied before they are changed."""
    results = tmp_path_factory.mktemp("finished") / "results"
    publish_all(load_plan(smoke()), results)
    return results
