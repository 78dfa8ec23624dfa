"""Stage: a projector that another program trained, converted once."""

from __future__ import annotations

from pathlib import Path

from vista.config.projector import PretrainedProjector
from vista.engine.artifacts import Job
from vista.store.features import FeatureReader


def run(job: Job) -> None:
    """Read a foreign state dict, features and LLM; write projector.safetensors and .json.

    Raises UserError where the file is no linear or two-layer projector between the two models.
    """
    from vista.projector.foreign import read_foreign
    from vista.projector.module import save_projector
    from vista.stages.loading import llm_width

    settings = PretrainedProjector.model_validate(job.settings["projector"])
    reader = FeatureReader(job.input("features").store("features.zarr"))
    projector = read_foreign(
        Path(settings.pretrained),
        d_vision=reader.shape[-1],
        d_model=llm_width(job),
        output_scale=settings.output_scale,
    )
    save_projector(job.work, projector)
