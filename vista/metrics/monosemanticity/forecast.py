"""What a job of this metric will need. Symbols: d channels, s latents, N images."""

from __future__ import annotations

from vista.engine.forecast.need import ROW, SMALL, UNKNOWN, Need
from vista.engine.forecast.shapes import Shapes, one
from vista.engine.forecast.shared import PART, encoding_need, vision_sae
from vista.engine.node import Node


def need(node: Node, shapes: Shapes) -> Need:
    """The SAE and the random dictionary encode every patch. Held: sums over images of activation x
    embedding, [s, d] in float64, five at once, and latents of a part."""
    size, other = vision_sae(node, shapes), shapes.features(node, "other")
    images = shapes.rows(one(node, "records"), node.settings["split"])
    if size is None or images is None or other is None:
        return UNKNOWN
    d, s, patches = size
    held = 40.0 * s * other.d_vision + 24.0 * PART * s
    disk = 10 * SMALL + ROW / 16 * s
    return encoding_need(node, shapes, disk, 4.0 * d * s * patches * images, held=held)
