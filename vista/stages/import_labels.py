"""Stage: labels of an SAE's latents, out of a Neuronpedia export."""

from __future__ import annotations

import json
from pathlib import Path

from vista.config.sae import NeuronpediaSettings
from vista.engine.artifacts import Job
from vista.errors import UserError
from vista.sae.label_table import FILE, write_labels
from vista.sae.neuronpedia import read_export


def run(job: Job) -> None:
    """Read the SAE's sae.json and the input `export`, or the folder that the settings name; write
    labels.parquet (see vista.sae.label_table).

    Raises UserError where the export is broken or of another SAE.
    """
    settings = NeuronpediaSettings.model_validate(job.settings["labels"])
    layer = int(job.settings["layer"])
    sae = json.loads(job.input("sae").file("sae.json").read_text(encoding="utf-8"))
    if sae["layer"] != layer:
        raise UserError(
            f"SAE {sae['name']} reads layer {sae['layer']}, labels are asked for layer {layer}"
        )
    fetched = job.optional("export")
    if fetched is not None:
        folder = fetched.folder("export")
    elif settings.path is not None:
        folder = Path(settings.path)
    else:
        raise UserError("labels have no source; give `path`, or fetch them by `model` and `source`")
    labels = read_export(
        folder,
        settings,
        layer=layer,
        d_sae=sae["d_sae"],
        sae=sae["name"],
        neuronpedia=sae.get("neuronpedia"),
    )
    write_labels(job.work / FILE, labels)
