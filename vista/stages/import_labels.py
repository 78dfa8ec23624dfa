"""Stage: read the labels of an SAE's latents from a Neuronpedia export."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from vista.config.base import Settings
from vista.config.sae import NeuronpediaSettings
from vista.engine.artifacts import Artifact
from vista.engine.forecast.need import ROW, Need
from vista.engine.forecast.shapes import Shapes
from vista.engine.job import StageJob, stage
from vista.engine.node import Node
from vista.errors import UserError
from vista.sae.label_table import FILE, write_labels
from vista.sae.neuronpedia import read_export


class ImportLabelsOrder(Settings):
    """The labels of one layer's SAE."""

    labels: NeuronpediaSettings
    layer: int


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """The SAE, and the fetched export unless the settings name a folder."""

    sae: Artifact
    export: Artifact | None = None


@stage(ImportLabelsOrder, Inputs)
def run(job: StageJob[ImportLabelsOrder, Inputs]) -> None:
    """Read the SAE's sae.json and the input `export`, or the folder that the settings name; write
    labels.parquet (see vista.sae.label_table).

    Raises UserError where the export is broken or of another SAE.
    """
    settings, layer = job.settings.labels, job.settings.layer
    sae = json.loads(job.inputs.sae.file("sae.json").read_text(encoding="utf-8"))
    if sae["layer"] != layer:
        raise UserError(
            f"SAE {sae['name']} reads layer {sae['layer']}, labels are asked for layer {layer}"
        )
    if job.inputs.export is not None:
        folder = job.inputs.export.folder("export")
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


def need(node: Node, shapes: Shapes) -> Need:
    """Disk: a row a latent."""
    d_sae = shapes.d_sae(node.parents()[0])
    return Need(disk=None if d_sae is None else ROW * d_sae)
