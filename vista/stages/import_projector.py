"""Stage: convert a projector that another program trained."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vista.config.base import Settings
from vista.config.language import LanguageSettings
from vista.config.projector import PretrainedProjector
from vista.engine.artifacts import Artifact
from vista.engine.forecast import formulas
from vista.engine.forecast.need import Need
from vista.engine.forecast.shapes import Shapes
from vista.engine.job import StageJob, stage
from vista.engine.node import Node
from vista.store.features import FeatureReader


class ImportProjectorOrder(Settings):
    """The language model, and the file of the projector."""

    llm: LanguageSettings
    projector: PretrainedProjector


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """Features, and the language model unless its settings name a folder."""

    features: Artifact
    llm: Artifact | None = None


@stage(ImportProjectorOrder, Inputs)
def run(job: StageJob[ImportProjectorOrder, Inputs]) -> None:
    """Read the state dict, features and LLM; write projector.safetensors and projector.json.

    Raises UserError where the file is no linear or two-layer projector between the two models.
    """
    from vista.inputs.models import llm_width
    from vista.projector.foreign import read_foreign
    from vista.projector.module import save_projector

    settings = job.settings.projector
    reader = FeatureReader(job.inputs.features.store("features.zarr"))
    projector = read_foreign(
        Path(settings.pretrained),
        d_vision=reader.shape[-1],
        d_model=llm_width(job.settings.llm, job.inputs.llm),
        output_scale=settings.output_scale,
    )
    save_projector(job.work, projector)


def need(node: Node, shapes: Shapes) -> Need:
    """Disk: the larger kind of projector in float32."""
    shape, vision = shapes.llm(node), shapes.features(node)
    if shape is None or vision is None:
        return Need(disk=None)
    return Need(disk=4 * formulas.projector_parameters("mlp", vision.d_vision, shape.d_model))
