"""Stage: convert an SAE of sae_lens, trained by the run or published, to the neutral form."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from vista.config.base import Settings
from vista.config.sae import ImportSaeSettings
from vista.engine.artifacts import Artifact
from vista.engine.forecast.need import Need
from vista.engine.forecast.shapes import Shapes
from vista.engine.forecast.shared import text_sae_bytes
from vista.engine.job import StageJob, stage
from vista.engine.node import Node
from vista.errors import UserError


class ImportSaeOrder(Settings):
    """Where the SAE comes from, the block that it reads, and its name."""

    sae: ImportSaeSettings
    layer: int
    name: str


@dataclass(frozen=True)
class Inputs:
    """An SAE that was trained here, or the files of a release; none for an SAE in a folder."""

    train_sae: Artifact | None = None
    fetched: Artifact | None = None


@stage(ImportSaeOrder, Inputs)
def run(job: StageJob[ImportSaeOrder, Inputs]) -> None:
    """Read the input `train_sae`, the input `fetched` (a release's files), a folder or a local copy
    of a release; write sae.safetensors and sae.json.

    Raises UserError where there is no such SAE, or none that the neutral form runs.
    """
    settings, layer, name = job.settings.sae, job.settings.layer, job.settings.name
    if job.inputs.train_sae is not None:
        _take(job.inputs.train_sae, name, job.work)
        return
    from vista.sae.convert import from_folder, from_release
    from vista.sae.hub import cached_snapshot
    from vista.sae.neutral import save_sae
    from vista.sae.releases import release_entry

    scale = settings.activation_scale
    path = Path(settings.path) if settings.path is not None else None
    if settings.release is not None and settings.sae_id is not None:
        if path is None:
            repo = release_entry(settings.release, settings.sae_id).repo
            assert job.inputs.fetched is not None
            path = cached_snapshot(job.inputs.fetched.folder("hub"), repo)
        sae = from_release(settings.release, settings.sae_id, layer, scale, path=path)
    elif path is not None:
        sae = from_folder(path, layer, scale, name)
    else:
        raise UserError(
            f"SAE {name}: no source; give `path`, or `release` and `sae_id`, or train it here"
        )
    save_sae(job.work, sae)


def _take(trained: Artifact, name: str, folder: Path) -> None:
    """Copy the neutral form that train_sae wrote, with the name changed; imports no torch."""
    source = trained.folder("neutral")
    shutil.copyfile(source / "sae.safetensors", folder / "sae.safetensors")
    config = {**json.loads((source / "sae.json").read_text(encoding="utf-8")), "name": name}
    text = json.dumps(config, sort_keys=True, indent=2) + "\n"
    (folder / "sae.json").write_text(text, encoding="utf-8")


def need(node: Node, shapes: Shapes) -> Need:
    """Disk: encoder and decoder in float32."""
    return Need(disk=text_sae_bytes(node, 4, shapes))
