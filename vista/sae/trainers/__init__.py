"""Dictionaries that sae_lens' trainer does not fit, a file each, by the name of the architecture.

A file has `fit`, with the arguments of `vista.sae.train.fit_sae`: it saves an SAE that sae_lens
opens, and returns the curve. A file is code of the nodes that train such a dictionary alone
(`Node.modules`).
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vista.config.registry import names_in


def fit_of(architecture: str) -> Callable[..., dict[str, list[float]]] | None:
    """Return the function that fits an architecture; None where sae_lens' trainer does."""
    if architecture not in names_in(Path(__file__).parent):
        return None
    module: Any = importlib.import_module(f"vista.sae.trainers.{architecture}")
    fit: Callable[..., dict[str, list[float]]] = module.fit
    return fit
