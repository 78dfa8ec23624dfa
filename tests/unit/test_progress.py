"""Progress in a log: few lines, with the rate, and nothing swallowed."""

from __future__ import annotations

import pytest

from vista import progress as module
from vista.progress import progress


def test_every_item_passes_and_the_last_line_has_count_and_rate(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert list(progress([1, 2, 3], desc="features", unit="image")) == [1, 2, 3]
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert said[0].startswith("features: 3/3 images, ")
    assert said[0].endswith(" images/s")


def test_long_work_says_how_much_is_left(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOG_INTERVAL", 0.0)
    list(progress(iter("ab"), total=2, desc="latents", unit="batch"))
    said = capsys.readouterr().err.splitlines()
    assert said[0].startswith("latents: 1/2 batches, ")
    assert said[0].endswith(" s left")
    assert len(said) == 3
