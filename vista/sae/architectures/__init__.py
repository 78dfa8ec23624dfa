"""The architectures of SAEs that are run here, a file each: its activation function at inference.

A file is code of the nodes that make SAEs of that architecture (`Node.modules`). Stages that run an
SAE read the function from `sae.json`, so a new architecture changes no artifact that is there.
"""

from __future__ import annotations

import importlib
from pathlib import Path

from vista.config.registry import names_in


def architecture_names() -> list[str]:
    """Return the names of all architectures, sorted: those of the files that hold them."""
    return names_in(Path(__file__).parent)


def activation_of(architecture: str) -> str:
    """Return the activation function of one of `architecture_names`."""
    return str(importlib.import_module(f"vista.sae.architectures.{architecture}").ACTIVATION)
