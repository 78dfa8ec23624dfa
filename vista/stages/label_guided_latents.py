"""Stage: name the latents of a guided dictionary: defined ones by their concept, free ones by their
top images."""

from __future__ import annotations

from vista.engine.forecast.need import Need
from vista.engine.forecast.shapes import Shapes
from vista.engine.job import StageJob, stage
from vista.engine.node import Node
from vista.inputs.vision import TOP_FILE
from vista.sae.defined import FILE as DEFINED_FILE
from vista.sae.defined import read_defined, with_concepts
from vista.stages import label_vision_latents
from vista.stages.label_vision_latents import Inputs, LabelVisionLatentsOrder


@stage(LabelVisionLatentsOrder, Inputs)
def run(job: StageJob[LabelVisionLatentsOrder, Inputs]) -> None:
    """Write what `label_vision_latents` writes, then name the latents by `with_concepts`.

    Raises UserError as that stage does, and where the SAE has no defined latents.
    """
    import pyarrow.parquet as pq

    from vista.sae.label_table import FILE, read_labels, write_labels

    label_vision_latents.run.run(job)
    labels = read_labels(job.work / FILE)
    defined = read_defined(job.inputs.sae.file(DEFINED_FILE), len(labels.label_s))
    top = pq.read_table(job.work / TOP_FILE, columns=["latent", "classes"]).to_pydict()
    write_labels(job.work / FILE, with_concepts(labels, defined, top["latent"], top["classes"]))


def need(node: Node, shapes: Shapes) -> Need:
    """As for an SAE without a guide."""
    return label_vision_latents.need(node, shapes)
