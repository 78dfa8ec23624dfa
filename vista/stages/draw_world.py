"""Stage: draw scenes and write them in the formats of real data."""

from __future__ import annotations

from vista.config.drawn import DrawnData
from vista.data.world import draw_world
from vista.engine.forecast.need import START, Need
from vista.engine.forecast.shapes import Shapes
from vista.engine.job import NoInputs, StageJob, stage
from vista.engine.node import Node

_PIXEL = 0.85e-6  # s to draw a pixel of a scene and pack it: 8.1 s for 3,700 of 48 x 48 measured


@stage(DrawnData, NoInputs)
def run(job: StageJob[DrawnData, NoInputs]) -> None:
    """Write images/, annotations/ (COCO and LLaVA JSON) and text/."""
    draw_world(job.settings, job.work, job.settings.seed)


def need(node: Node, _shapes: Shapes) -> Need:
    """Disk: PNG files of at most three bytes a pixel."""
    settings = node.settings
    pixels = settings["image_size"] ** 2 * sum(settings["scenes"].values())
    return Need(disk=3.0 * pixels, seconds=START + _PIXEL * pixels)
