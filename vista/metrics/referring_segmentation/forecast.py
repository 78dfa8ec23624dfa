"""What a job of this metric will need."""

from __future__ import annotations

from dataclasses import replace

from vista.engine.forecast import formulas
from vista.engine.forecast.formulas import Dictionaries
from vista.engine.forecast.need import SMALL, TORCH_START, Need
from vista.engine.forecast.shapes import Shapes, many, one
from vista.engine.node import Node

# Expressions of an image, methods on a layer, and s to overlap one map of a drawn image with its
# truth: 24 s for 4,000 expressions, 3 layers and 3 methods measured.
_EXPRESSIONS, _METHODS, _OVERLAP = 6.0, 4.0, 6e-4


def need(node: Node, shapes: Shapes) -> Need:
    """Time: a pass over the visual tokens of both splits with the head at every layer, and the
    overlaps. Disk: a row an expression, method and layer."""
    settings, layers = node.order["referring_segmentation"], len(many(node, "labels"))
    records = one(node, "records")
    rows = [shapes.rows(records, split) for split in ("validation", "test")]
    if None in rows:
        return Need(None, None, None)
    images = sum(row or 0 for row in rows)
    maps = images * _EXPRESSIONS * layers * _METHODS
    base = Need(SMALL + 20.0 * maps, 0.0, TORCH_START + _OVERLAP * maps)
    if not settings["logit_lens"]:
        return base
    shape, vision, device = shapes.llm(node), shapes.features(node), shapes.llm_device(node)
    if shape is None or vision is None or base.seconds is None:
        return replace(base, memory=None, seconds=None)
    read = Dictionaries(tuple(range(layers)), [], [])
    memory = formulas.reading_memory(shape, device, read, settings["batch_size"], vision.patches)
    tokens = images * vision.patches
    flops = formulas.forward_flops(shape, tokens, tokens * layers)
    return replace(base, memory=device.memory(memory), seconds=base.seconds + device.seconds(flops))
