"""Programs that fetch packages from a registry."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from collections.abc import Mapping

# The program of each kind of package.
CLIENTS: Mapping[str, str] = {"pip": "pip", "apt": "apt-get"}
INSTEAD = "name a `kind: folder` with its files instead"


def client_command(kind: str) -> list[str] | None:
    """Return the command of a kind's client, `pip` or `apt`; None where it is not installed."""
    if kind == "pip" and importlib.util.find_spec("pip") is not None:
        return [sys.executable, "-m", "pip"]
    path = shutil.which(CLIENTS[kind])
    return None if path is None else [path]
