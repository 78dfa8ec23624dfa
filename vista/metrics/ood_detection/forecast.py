"""What a job of this metric will need. Symbols: d channels, s latents, N images."""

from __future__ import annotations

from vista.engine.forecast.need import ROW, SMALL, UNKNOWN, Need
from vista.engine.forecast.shapes import Shapes
from vista.engine.forecast.shared import PART, encoding_need, image_level, probe_flops
from vista.engine.node import Node


def need(node: Node, shapes: Shapes) -> Need:
    """Encoded and decoded by the SAE, encoded by the random one; neighbours in latents of both and
    in features. Held: four times the latents of what is fitted on [N, s]."""
    level = image_level(node, shapes)
    if level is None:
        return UNKNOWN
    (d, s, patches), fitted, judged = level
    flops = 2.0 * fitted * judged * (2 * s + d)
    # Randomised principal components pass over the matrix about ten times.
    flops += 20.0 * fitted * s * min(node.settings["components"], fitted, s)
    flops += probe_flops(node, fitted, d)
    held = 16.0 * s * (fitted + PART)
    encoding = 6.0 * d * s * patches * (fitted + judged)
    return encoding_need(node, shapes, SMALL + ROW / 2 * judged, encoding, flops, held)
