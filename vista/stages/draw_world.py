"""Stage: draw scenes and write them in the formats of real data."""

from __future__ import annotations

from vista.config.drawn import DrawnData
from vista.data.world import draw_world
from vista.engine.job import NoInputs, StageJob, stage


@stage(DrawnData, NoInputs)
def run(job: StageJob[DrawnData, NoInputs]) -> None:
    """Write images/, annotations/ (COCO and LLaVA JSON) and text/."""
    draw_world(job.settings, job.work, job.settings.seed)
