"""A random checkpoint of every family, loaded by the real path; one word-level tokenizer."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from checkpoints import FAMILIES, save_checkpoint

WORDS = "a red cat blue dog at left right on grass sand . describe what is ? the scene color"


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Folder of a family's checkpoint, written once for each set of options."""
    root = tmp_path_factory.mktemp("hub")

    def folder(family: str, **options: Any) -> Path:
        place = root / "-".join([family, *(f"{k}{v}" for k, v in sorted(options.items()))])
        if not place.exists():
            save_checkpoint(family, place, **options)
        return place

    return folder


@pytest.fixture(scope="session", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="session")
def any_lm(family: str, checkpoint: Callable[..., Path]) -> Any:
    """A LanguageModel of each family in turn, visual tokens right after BOS."""
    from vista.language.model import LanguageModel

    return LanguageModel.load(checkpoint(family))


@pytest.fixture(scope="session", params=("after_bos", "in_question"))
def placed_lm(request: pytest.FixtureRequest, family: str, checkpoint: Callable[..., Path]) -> Any:
    """A LanguageModel of each family with each placement of the visual tokens."""
    from vista.language.model import LanguageModel

    return LanguageModel.load(checkpoint(family), placement=request.param)


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    from vista.standins.llm import build_tokenizer

    return build_tokenizer([WORDS])
