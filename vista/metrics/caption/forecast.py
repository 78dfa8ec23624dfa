"""What a job of this metric will need. Symbols: d channels, s latents, N images."""

from __future__ import annotations

from vista.engine.forecast import formulas
from vista.engine.forecast.need import SMALL, TORCH_START, Need
from vista.engine.forecast.shapes import Shapes, one
from vista.engine.forecast.shared import decoding_steps, text_tokens
from vista.engine.node import Node


def need(node: Node, shapes: Shapes) -> Need:
    """One pass over the images, two over text (reference, that of another image), then greedy
    decoding."""
    shape, vision = shapes.llm(node), shapes.features(node)
    settings, device = node.order["caption"], shapes.llm_device(node)
    if shape is None or vision is None:
        return Need(SMALL, None, None)
    most = formulas.text_tokens(settings["max_length"], vision.patches)
    batch, new_tokens = settings["batch_size"], settings["max_new_tokens"]
    length, answer = vision.patches + most, min(most, new_tokens)
    memory = formulas.caption_memory(shape, device, batch, length, answer)
    rows, seconds = shapes.rows(one(node, "records"), settings["split"]), None
    if rows is not None:
        text = text_tokens(node, shapes, settings["max_length"], vision.patches, first=True)
        read = rows * (vision.patches + 2 * text)
        passes = formulas.forward_flops(shape, read, 2 * rows * text)
        decoding = device.decoding_seconds(
            -(-rows // batch) * decoding_steps(node, shapes, new_tokens), shape
        )
        seconds = TORCH_START + device.seconds(passes) + decoding
    return Need(SMALL, device.memory(memory), seconds)
