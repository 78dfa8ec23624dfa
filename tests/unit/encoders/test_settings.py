"""Settings of encoders: which families are trained here, which are loaded, and where they run."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from vista.config.encoders import EncoderSettings, family_names


def settings(**source: Any) -> EncoderSettings:
    return EncoderSettings.model_validate({"source": {"kind": "checkpoint", "path": "x", **source}})


def test_every_family_can_be_a_checkpoint() -> None:
    assert "clip" in family_names()
    for family in family_names():
        assert settings(family=family).source.family == family


def test_only_three_families_are_trained_here() -> None:
    with pytest.raises(ValidationError, match="'dinov2', 'clip' or 'siglip'"):
        EncoderSettings.model_validate({"source": {"kind": "standin", "family": "ijepa"}})


def test_prefix_tokens_are_a_count() -> None:
    assert settings(family="vit", prefix_tokens=0).source.prefix_tokens == 0  # type: ignore[union-attr]
    with pytest.raises(ValidationError, match="greater than or equal to 0"):
        settings(family="vit", prefix_tokens=-1)


@pytest.mark.parametrize("device", ["gpu", "cuda:", "cuda:one", "CPU"])
def test_a_device_has_one_of_the_known_names(device: str) -> None:
    source = {"kind": "checkpoint", "path": "x", "family": "clip"}
    with pytest.raises(ValidationError, match="device"):
        EncoderSettings.model_validate({"source": source, "device": device})
