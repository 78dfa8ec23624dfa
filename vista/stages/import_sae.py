"""Stage: an SAE of sae_lens, trained here or published, in the neutral form."""

from __future__ import annotations

from pathlib import Path

from vista.artifacts import Job
from vista.config.sae import ImportSaeSettings
from vista.errors import UserError


def run(job: Job) -> None:
    """Read the input `train_sae`, a folder or a release; write sae.safetensors and sae.json.

    Raises UserError where there is no such SAE, or none that the neutral form runs.
    """
    from vista.sae.convert import from_folder, from_release
    from vista.sae.neutral import save_sae

    settings = ImportSaeSettings.model_validate(job.settings["sae"])
    layer, name = int(job.settings["layer"]), str(job.settings["name"])
    trained = job.optional("train_sae")
    if trained is not None:
        sae = from_folder(trained.folder("sae"), layer, name=name)
    elif settings.path is not None:
        sae = from_folder(Path(settings.path), layer, settings.activation_scale, name)
    elif settings.release is not None and settings.sae_id is not None:
        sae = from_release(settings.release, settings.sae_id, layer, settings.activation_scale)
    else:
        raise UserError(
            f"SAE {name}: no source; give `path`, or `release` and `sae_id`, or train it here"
        )
    save_sae(job.work, sae)
