"""What a job of this metric will need."""

from __future__ import annotations

from vista.engine.forecast.formulas import forward_flops
from vista.engine.forecast.need import SMALL, TORCH_START, Need
from vista.engine.forecast.shapes import Shapes, one
from vista.engine.forecast.shared import text_tokens
from vista.engine.node import Node


def need(node: Node, shapes: Shapes) -> Need:
    """Four passes over each image and its answer, and the products of its visual tokens with the
    head and with the embeddings, twice."""
    shape, vision, device = shapes.llm(node), shapes.features(node), shapes.llm_device(node)
    settings = node.settings["pseudo_images"]
    if shape is None or vision is None:
        return Need(SMALL, None, None)
    head = shape.vocabulary * shape.d_model
    memory = device.memory(4 * (shape.parameters + 2 * head))
    rows = shapes.rows(one(node, "records"), settings["split"])
    if rows is None:
        return Need(SMALL, memory, None)
    words = text_tokens(node, shapes, settings["max_length"], vision.patches)
    flops = 4 * rows * forward_flops(shape, vision.patches + words, words)
    flops += 8.0 * rows * vision.patches * head
    return Need(SMALL, memory, TORCH_START + device.seconds(flops))
