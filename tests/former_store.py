"""Latent stores as earlier versions wrote them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from vista.store.tree import META, _digest

# What has been added to the inverse since: arrays, and an attribute of its offsets.
_ARRAYS, _ATTRIBUTE = ("histogram", "top_map"), "valid_tokens"


def make_former(store: Path) -> None:
    """Take out of a sealed store what earlier versions did not write."""
    root = json.loads((store / META).read_text())
    nodes = root["consolidated_metadata"]["metadata"]
    for name in list(nodes):
        array = name.rpartition("/")[2]
        if array in _ARRAYS:
            del nodes[name]
            shutil.rmtree(store / name)
        elif array == "offset":
            del nodes[name]["attributes"][_ATTRIBUTE]
            (store / name / META).write_text(json.dumps(nodes[name]))
    root["attributes"]["metadata_sha256"] = _digest(root["attributes"], nodes)
    (store / META).write_text(json.dumps(root))
