"""What a folder of `vista explore --export` holds: files of artifacts, without their manifests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from vista.engine.artifacts import Artifact
from vista.errors import UserError
from vista.explore.latents import LatentView
from vista.readout.parts import LABELS
from vista.sae.label_table import FILE, LatentLabels, read_labels


@dataclass(frozen=True)
class ExportedArtifact(Artifact):
    """An exported artifact. It has no checksums; those of chunks are in the stores."""

    def file(self, name: str) -> Path:
        """Return the path of a file. Raises UserError if the export does not have it."""
        if not (self.path / name).exists():
            raise UserError(f"{self.path / name} is no part of this export: open the results")
        return self.path / name

    folder = store = file

    def verify(self) -> None:
        """Do nothing: there is nothing to compare with."""


def exported_artifact(results: Path, entry: Mapping[str, Any]) -> ExportedArtifact:
    """Return an artifact by its entry in the export's catalogue."""
    manifest = {
        "stage": entry["stage"],
        "settings": {},
        "inputs": entry.get("parents", {}),
        "parents": entry.get("parents", {}),
        "digest": entry.get("digest", ""),
    }
    return ExportedArtifact(results / str(entry["folder"]), manifest, {})


class ExportedLatents(LatentView):
    """Latents of an export, with the labels that lie beside them; see `LatentView`."""

    def __init__(
        self, results: Path, entry: Mapping[str, Any], entries: Sequence[Mapping[str, Any]]
    ) -> None:
        self._by_folder = {str(other["folder"]): other for other in entries}
        self._results = results
        self._read(exported_artifact(results, entry))

    @cached_property
    def labels(self) -> dict[int, LatentLabels]:
        """The labels of each layer whose SAE is labelled in the export."""
        saes = set(self.artifact.inputs.get("saes", ()))
        tables = [
            read_labels(exported_artifact(self._results, entry).file(FILE))
            for entry in self._by_folder.values()
            if entry["stage"] in LABELS and saes.intersection(entry["parents"].get("sae", ()))
        ]
        return {table.layer: table for table in tables}

    def _parent(self, role: str, of: Artifact | None = None) -> Artifact | None:
        folders = (of or self.artifact).inputs.get(role, ())
        entry = next((self._by_folder[f] for f in folders if f in self._by_folder), None)
        return None if entry is None else exported_artifact(self._results, entry)
