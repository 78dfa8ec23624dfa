"""Stage: an SAE of sae_lens, trained here or published, in the neutral form."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from vista.config.sae import ImportSaeSettings
from vista.engine.artifacts import Artifact, Job
from vista.errors import UserError


def run(job: Job) -> None:
    """Read the input `train_sae`, the input `fetched` (a release's files), a folder or a local copy
    of a release; write sae.safetensors and sae.json.

    Raises UserError where there is no such SAE, or none that the neutral form runs.
    """
    settings = ImportSaeSettings.model_validate(job.settings["sae"])
    layer, name = int(job.settings["layer"]), str(job.settings["name"])
    trained = job.optional("train_sae")
    if trained is not None:
        _take(trained, name, job.work)
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
            path = cached_snapshot(job.input("fetched").folder("hub"), repo)
        sae = from_release(settings.release, settings.sae_id, layer, scale, path=path)
    elif path is not None:
        sae = from_folder(path, layer, scale, name)
    else:
        raise UserError(
            f"SAE {name}: no source; give `path`, or `release` and `sae_id`, or train it here"
        )
    save_sae(job.work, sae)


def _take(trained: Artifact, name: str, folder: Path) -> None:
    """Copy the neutral form that train_sae made, under this SAE's name: no torch, no sae_lens."""
    source = trained.folder("neutral")
    shutil.copyfile(source / "sae.safetensors", folder / "sae.safetensors")
    config = {**json.loads((source / "sae.json").read_text(encoding="utf-8")), "name": name}
    text = json.dumps(config, sort_keys=True, indent=2) + "\n"
    (folder / "sae.json").write_text(text, encoding="utf-8")
