"""An artifact's ancestors, by the folders of parents that manifests name."""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vista.engine.artifacts import MANIFEST, Artifact, open_artifact

# The manifest's key; its values are RESULTS/STAGE/NAME-ID without RESULTS, or lists of such.
PARENTS = "parents"
_FOLDER = re.compile(r"[a-z_]+/(?!\.\.?$)[A-Za-z0-9_.+-]+")


@dataclass(frozen=True)
class Parent:
    """One input of an artifact.

    `child` and `path` are folders below the results folder, STAGE/NAME-ID. `role` is what the
    child's stage calls the input.
    """

    child: str
    role: str
    path: str


def parents_of(manifest: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return the folders of an artifact's inputs by role, STAGE/NAME-ID below the results folder.

    Entries that are no such folder are left out; a manifest without the list has no parents.
    """
    listed = manifest.get(PARENTS)
    parents = {}
    for role, value in listed.items() if isinstance(listed, dict) else ():
        paths = value if isinstance(value, list) else [value]
        parents[str(role)] = [
            path for path in paths if isinstance(path, str) and _FOLDER.fullmatch(path)
        ]
    return parents


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """Return the manifest of an artifact, unchecked; None if it cannot be read."""
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return manifest if isinstance(manifest, dict) else None


def inputs_there(artifact: Artifact, role: str) -> list[Artifact]:
    """Return the inputs of an artifact in a role, those that its results folder has.

    Raises:
        UserError: One is damaged.
    """
    results = artifact.path.absolute().parents[1]
    return [
        open_artifact(results / path, path.partition("/")[0])
        for path in parents_of(artifact.manifest).get(role, [])
        if (results / path / MANIFEST).is_file()
    ]


def lineage(folder: Path) -> Iterator[Parent]:
    """Yield an artifact's ancestors, nearest first, each once, as the input of its first child.

    Args:
        folder: The artifact's folder, RESULTS/STAGE/NAME-ID. Parents that are not there, or whose
            manifests cannot be read, have no parents.
    """
    results = folder.absolute().parents[1]
    start = folder.absolute().relative_to(results).as_posix()
    seen, queue = {start}, deque([start])
    while queue:
        child = queue.popleft()
        manifest = read_manifest(results / child)
        for role, paths in parents_of(manifest or {}).items():
            for path in paths:
                if path not in seen:
                    seen.add(path)
                    queue.append(path)
                    yield Parent(child, role, path)
