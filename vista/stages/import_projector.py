"""Stage: convert a projector that another program trained."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vista.config.base import Settings
from vista.config.language import LanguageSettings
from vista.config.projector import PretrainedProjector
from vista.engine.artifacts import Artifact
from vista.engine.job import StageJob, stage
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
