"""What a job of this metric will need. Symbols: d channels, s latents, n patches of a split."""

from __future__ import annotations

from vista.engine.forecast.need import ROW, SMALL, UNKNOWN, Need
from vista.engine.forecast.shapes import Shapes
from vista.engine.forecast.shared import classes, encoding_need, vision_sae
from vista.engine.node import Node


def need(node: Node, shapes: Shapes) -> Need:
    """Three SAEs encode the patches of two splits; a probe a concept is fitted on a third (4 FLOP a
    patch, channel and iteration). About as many synsets are concepts as classes. Held: patches of
    three splits, and scores of five classifiers."""
    size, settings = vision_sae(node, shapes), node.settings
    if size is None:
        return UNKNOWN
    d, s, _ = size
    concepts, n = 2 * classes(node), settings["max_patches"]
    probes = 4.0 * n * d * concepts * settings["iterations"]
    held = 12.0 * n * d + 80.0 * n * concepts
    disk = SMALL + ROW / 16 * concepts
    return encoding_need(node, shapes, disk, 3 * 2.0 * d * s * 2 * n, probes, held)
