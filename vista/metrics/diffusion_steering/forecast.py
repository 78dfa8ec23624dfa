"""What a job of this metric will need. Symbols: d channels, s latents, N images."""

from __future__ import annotations

from vista.engine.forecast.need import Need
from vista.engine.forecast.shapes import Shapes
from vista.engine.forecast.shared import generation_need
from vista.engine.node import Node

_ABLATED = 4  # as vista/stages/diffusion_steering.py has it, which is not imported: numpy


def need(node: Node, shapes: Shapes) -> Need:
    """Images of each target: three methods at every coefficient and the edited prompt on those of
    development, four on those of test, and what is ablated; the unedited ones besides."""
    settings = node.settings["steering"]
    development, test = settings["development"], settings["test"]
    a_target = development * (3 * len(settings["coefficients"]) + 1) + 4 * (test + _ABLATED)
    targets = len(settings["attributes"]) * settings["targets"]
    return generation_need(node, shapes, targets * a_target + development + test)
