"""Stage: convert a projector that another program trained, or that of a vision-language model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vista.config.base import Settings
from vista.config.language import LanguageSettings
from vista.config.projector import OwnProjector, PretrainedProjector
from vista.engine.artifacts import Artifact
from vista.engine.forecast import formulas
from vista.engine.forecast.need import Need
from vista.engine.forecast.shapes import Shapes
from vista.engine.job import StageJob, stage
from vista.engine.node import Node
from vista.errors import UserError
from vista.store.features import FeatureReader


class ImportProjectorOrder(Settings):
    """The language model, and the file of the projector unless the features hold its output."""

    llm: LanguageSettings
    projector: PretrainedProjector | OwnProjector


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """Features, and the language model unless its settings name a folder."""

    features: Artifact
    llm: Artifact | None = None


@stage(ImportProjectorOrder, Inputs)
def run(job: StageJob[ImportProjectorOrder, Inputs]) -> None:
    """Read the state dict, features and LLM; write projector.safetensors and projector.json.

    Raises UserError where the file is no linear or two-layer projector between the two models, or
    where features that are visual tokens have another width than the LLM.
    """
    from vista.inputs.models import llm_width
    from vista.projector.foreign import read_foreign
    from vista.projector.module import Projector, save_projector

    settings = job.settings.projector
    d_vision = FeatureReader(job.inputs.features.store("features.zarr")).shape[-1]
    d_model = llm_width(job.settings.llm, job.inputs.llm)
    if isinstance(settings, PretrainedProjector):
        path, scale = Path(settings.pretrained), settings.output_scale
        projector = read_foreign(path, d_vision=d_vision, d_model=d_model, output_scale=scale)
    elif d_vision == d_model:
        projector = Projector(settings.kind, d_vision, d_model)
    else:
        raise UserError(
            f"{job.inputs.features.path}: its visual tokens have width {d_vision}, the language "
            f"model {d_model}; name one checkpoint for both"
        )
    save_projector(job.work, projector)


def need(node: Node, shapes: Shapes) -> Need:
    """Disk: the larger kind of projector in float32."""
    shape, vision = shapes.llm(node), shapes.features(node)
    if shape is None or vision is None:
        return Need(disk=None)
    return Need(disk=4 * formulas.projector_parameters("mlp", vision.d_vision, shape.d_model))
