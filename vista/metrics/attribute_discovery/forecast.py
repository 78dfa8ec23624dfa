"""What a job of this metric will need. Symbols: d channels, s latents, N images."""

from __future__ import annotations

from vista.engine.forecast.need import Need
from vista.engine.forecast.shapes import Shapes
from vista.engine.forecast.shared import generation_need
from vista.engine.node import Node


def need(node: Node, shapes: Shapes) -> Need:
    """By a proposal, a random direction and a random latent in its place, and unedited."""
    settings = node.settings["discovery"]
    return generation_need(node, shapes, (3 * settings["proposals"] + 1) * settings["prompts"])
