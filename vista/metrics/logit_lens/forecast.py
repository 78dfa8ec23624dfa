"""What a job of this metric will need. Symbols: d channels, s latents, N images."""

from __future__ import annotations

from vista.engine.forecast import formulas
from vista.engine.forecast.formulas import Dictionaries
from vista.engine.forecast.need import SMALL, TORCH_START, Need
from vista.engine.forecast.shapes import Shapes, one
from vista.engine.node import Node


def need(node: Node, shapes: Shapes) -> Need:
    """A pass over the visual tokens alone, and the head at every layer. Disk: a word and its
    probability, 8 bytes, of each token and layer."""
    shape, vision, layers = shapes.llm(node), shapes.features(node), node.settings["layers"]
    settings, device = node.order["logit_lens"], shapes.llm_device(node)
    if shape is None or vision is None:
        return Need(SMALL, None, None)
    read, batch = Dictionaries(layers, [], []), settings["batch_size"]
    memory = device.memory(formulas.reading_memory(shape, device, read, batch, vision.patches))
    rows = shapes.rows(one(node, "records"), settings["split"])
    if rows is None:
        return Need(None, memory, None)
    tokens = rows * vision.patches
    flops = formulas.forward_flops(shape, tokens, tokens * len(layers))
    disk = SMALL + 8.0 * tokens * len(layers)
    return Need(disk, memory, TORCH_START + device.seconds(flops))
