"""Stage: labels of an SAE's latents, from Neuronpedia's public export."""

from __future__ import annotations

from vista.config.base import Settings
from vista.engine.forecast.need import Need
from vista.engine.forecast.shapes import Shapes
from vista.engine.job import NoInputs, StageJob, stage
from vista.engine.node import Node
from vista.fetch.neuronpedia import fetch_export


class FetchLabelsOrder(Settings):
    """Neuronpedia's ids of a model and of an SAE."""

    model: str
    source: str


@stage(FetchLabelsOrder, NoInputs)
def run(job: StageJob[FetchLabelsOrder, NoInputs]) -> None:
    """Write export/ with explanations/ and features/, and source.json: what the export held.

    Raises UserError as `fetch_export`.
    """
    model, source = job.settings.model, job.settings.source
    fetch_export(model, source, job.work / "export", job.work / "source.json")


def need(_node: Node, _shapes: Shapes) -> Need:
    """The size of an export is not known before it is there."""
    return Need(disk=None, seconds=0.0)
