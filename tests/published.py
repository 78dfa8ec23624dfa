"""Artifacts for tests that no stage made."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from vista.engine.artifacts import Artifact, Provenance, open_artifact, publishing


def publish(root: Path, stage: str, name: str, write: Callable[[Path], Any]) -> Artifact:
    """Publish what `write` puts into its folder as the artifact `name` of a stage."""
    with publishing(root, stage, name, Provenance(stage, {}, {}, {}, {})) as work:
        assert work is not None
        write(work)
    return open_artifact(root / stage / name)
