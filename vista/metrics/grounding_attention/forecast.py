"""What a job of this metric will need."""

from __future__ import annotations

from vista.engine.forecast import formulas
from vista.engine.forecast.need import SMALL, TORCH_START, Need
from vista.engine.forecast.shapes import Shapes, one
from vista.engine.forecast.shared import text_tokens
from vista.engine.node import Node


def need(node: Node, shapes: Shapes) -> Need:
    """Two passes over the images of two splits with their answers: the own image, another one."""
    shape, vision = shapes.llm(node), shapes.features(node)
    settings, device = node.order["grounding_attention"], shapes.llm_device(node)
    if shape is None or vision is None:
        return Need(SMALL, None, None)
    most, batch = settings["max_length"], settings["batch_size"]
    answer = formulas.text_tokens(most, vision.patches)
    memory = device.memory(
        formulas.caption_memory(shape, device, batch, vision.patches + answer, answer)
    )
    records = one(node, "records")
    rows = [shapes.rows(records, settings[name]) for name in ("split", "fit_split")]
    if None in rows:
        return Need(SMALL, memory, None)
    images = sum(min(some or 0, settings["max_images"]) for some in rows)
    text = text_tokens(node, shapes, most, vision.patches, first=True)
    passes = formulas.forward_flops(shape, 2 * images * (vision.patches + text), 2 * images * text)
    return Need(SMALL, memory, TORCH_START + device.seconds(passes))
