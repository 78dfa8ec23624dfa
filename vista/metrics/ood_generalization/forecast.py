"""What a job of this metric will need. Symbols: d channels, s latents, N images."""

from __future__ import annotations

from vista.engine.forecast.need import SMALL, UNKNOWN, Need
from vista.engine.forecast.shapes import Shapes
from vista.engine.forecast.shared import PART, classes, encoding_need, image_level, probe_flops
from vista.engine.node import Node

_LBFGS = 25  # vectors that L-BFGS keeps


def need(node: Node, shapes: Shapes) -> Need:
    """As `ood_detection`, then a probe on each representation. Held: the past of L-BFGS besides."""
    level = image_level(node, shapes)
    if level is None:
        return UNKNOWN
    (d, s, patches), fitted, judged = level
    width = 2 * s + d + 3 * sum(node.settings["latents"])
    flops = probe_flops(node, fitted, width)
    held = 14.0 * s * (fitted + PART) + 8.0 * _LBFGS * classes(node) * s
    encoding = 6.0 * d * s * patches * (fitted + judged)
    return encoding_need(node, shapes, SMALL, encoding, flops, held)
