"""What a job of this metric will need. Symbols: d channels, s latents, N images."""

from __future__ import annotations

from vista.engine.forecast.need import ROW, SMALL, UNKNOWN, Need
from vista.engine.forecast.shapes import Shapes, one
from vista.engine.forecast.shared import PART, classes, encoding_need, vision_sae
from vista.engine.node import Node


def need(node: Node, shapes: Shapes) -> Need:
    """The SAE encodes every patch, and each labelled latent is ranked and compared with each class.
    Held: the latents of a part, and those that are labelled of all images three times."""
    size = vision_sae(node, shapes)
    images = shapes.rows(one(node, "records"), node.settings["split"])
    steering = one(node, "steering")
    if size is None or images is None or steering is None:
        return UNKNOWN
    d, s, patches = size
    latents = min(steering.settings["steer"]["latents"] or s, s)
    held = 4.0 * PART * s + 20.0 * images * latents
    flops = 2.0 * images * latents * classes(node)
    disk = SMALL + ROW / 16 * latents
    return encoding_need(node, shapes, disk, 2.0 * d * s * patches * images, flops, held)
