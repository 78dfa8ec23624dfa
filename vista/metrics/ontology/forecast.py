"""What a job of this metric will need. Symbols: d channels, s latents, N images."""

from __future__ import annotations

from vista.engine.forecast.need import ROW, SMALL, UNKNOWN, Need
from vista.engine.forecast.shapes import Shapes, one
from vista.engine.forecast.shared import encoding_need, vision_sae
from vista.engine.node import Node


def need(node: Node, shapes: Shapes) -> Need:
    """Top images of the features' channels and of a random dictionary, over the labels' split."""
    labels, size = one(node, "labels"), vision_sae(node, shapes)
    assert labels is not None
    images = shapes.rows(one(node, "records"), labels.settings["labels"]["split"])
    if size is None or images is None:
        return UNKNOWN
    d, s, patches = size
    encoding = 2.0 * d * (d + s) * patches * images
    return encoding_need(node, shapes, SMALL + ROW / 8 * (2 * s + d), encoding)
