"""The files of the page, and the catalogue as they read it."""

from __future__ import annotations

import importlib.resources
import json
import re
from collections.abc import Mapping
from typing import Any

INDEX = "index.html"
_FILE = re.compile(r"[a-z][a-z0-9_-]*\.(html|js|css|png|svg|txt)")


def page_files() -> dict[str, bytes]:
    """Return the files of the page by name."""
    folder = importlib.resources.files("vista.explore") / "page"
    return {
        file.name: file.read_bytes()
        for file in folder.iterdir()
        if file.is_file() and _FILE.fullmatch(file.name)
    }


def catalogue_bytes(catalogue: Mapping[str, Any]) -> bytes:
    """Return the catalogue as JSON."""
    return (json.dumps(catalogue, separators=(",", ":")) + "\n").encode()
