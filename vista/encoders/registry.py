"""The families of vision encoders, by name; each is loaded when it is asked for."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from vista.errors import UserError


@dataclass(frozen=True)
class EncoderFamily:
    """What differs between families.

    Attributes:
        tower: the vision model inside what the Auto class loads.
        blocks: the tower's transformer blocks, in order.
        norm: the norm that the tower's `last_hidden_state` has on patch tokens, or None.
        prefix_tokens: class and register tokens before the patches, from the model's config.
    """

    tower: Callable[[Any], Any]
    blocks: Callable[[Any], Any]
    norm: Callable[[Any], Any | None]
    prefix_tokens: Callable[[Any], int]


# A new family is one module with FAMILY, and one line here.
MODULES = {
    "dinov2": "vista.encoders.dinov2",
    "clip": "vista.encoders.clip",
    "siglip": "vista.encoders.siglip",
}


def load_family(name: str) -> EncoderFamily:
    """Return the family `name`. Raises UserError that lists the known ones."""
    if name not in MODULES:
        known = ", ".join(sorted(MODULES))
        raise UserError(f"encoder family {name!r} is unknown; known families: {known}")
    family = importlib.import_module(MODULES[name]).FAMILY
    assert isinstance(family, EncoderFamily)
    return family
