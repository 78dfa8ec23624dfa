"""The planted model, made once for all tests of directions and edits."""

from __future__ import annotations

from typing import Any

import pytest
from planted_words import make


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return make(tmp_path_factory.mktemp("artifacts"))
