"""Stage: draw scenes and write them in the formats of real data."""

from __future__ import annotations

from vista.config.drawn import DrawnData
from vista.data.world import draw_world
from vista.engine.artifacts import Job


def run(job: Job) -> None:
    """Write images/, annotations/ (COCO and LLaVA JSON) and text/."""
    settings = DrawnData.model_validate(job.settings)
    draw_world(settings, job.work, settings.seed)
