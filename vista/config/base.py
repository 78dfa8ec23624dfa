"""The base of all settings."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class Settings(BaseModel):
    """Settings as read from a config: unknown keys are refused, values cannot be changed."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def later(default: Any, *, description: str, **bounds: Any) -> Any:
    """Return a field that an earlier version did not have.

    While the field has its default, it is left out of what settings are dumped as. So artifacts
    that were made before the field was there keep their ids.
    """
    return Field(
        default, description=description, exclude_if=lambda value: value == default, **bounds
    )
