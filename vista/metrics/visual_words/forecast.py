"""What a job of this metric will need."""

from __future__ import annotations

from vista.engine.forecast.need import SMALL, TORCH_START, Need
from vista.engine.forecast.shapes import Shapes, one
from vista.engine.node import Node


def need(node: Node, shapes: Shapes) -> Need:
    """The product of each visual token with the head. Disk: a word and its strength, 8 bytes, of
    each token."""
    shape, vision, device = shapes.llm(node), shapes.features(node), shapes.llm_device(node)
    rows = shapes.rows(one(node, "records"), node.settings["visual_words"]["split"])
    if shape is None or vision is None:
        return Need(SMALL, None, None)
    head = shape.vocabulary * shape.d_model
    memory = device.memory(4 * (shape.parameters + head))
    if rows is None:
        return Need(None, memory, None)
    tokens = rows * vision.patches
    return Need(SMALL + 8.0 * tokens, memory, TORCH_START + device.seconds(2.0 * head * tokens))
