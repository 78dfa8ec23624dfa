"""Artifacts for tests that no stage made."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from vista.engine.artifacts import Artifact, Provenance, open_artifact, publishing


def publish(
    root: Path,
    path: str,
    write: Callable[[Path], object],
    settings: dict[str, Any] | None = None,
    **parents: Artifact | list[Artifact],
) -> Artifact:
    """Publish what `write` puts into its work folder as the artifact STAGE/NAME of `path`, made
    from `parents`."""
    stage, folder = path.split("/")

    def below(of: Callable[[Artifact], str]) -> dict[str, Any]:
        return {
            role: list(map(of, made)) if isinstance(made, list) else of(made)
            for role, made in parents.items()
        }

    digests = below(lambda made: made.digest)
    folders = below(lambda made: made.path.relative_to(root).as_posix())
    record = Provenance(stage, settings or {}, digests, {}, {}, folders)
    with publishing(root, stage, folder, record) as work:
        assert work is not None
        write(work)
    return open_artifact(root / stage / folder)
