"""What a job of this metric will need. Symbols: N top images of all latents, t synsets."""

from __future__ import annotations

from vista.engine.forecast.need import ROW, SMALL, START, UNKNOWN, Need
from vista.engine.forecast.shapes import Shapes, one
from vista.engine.forecast.shared import classes, vision_sae
from vista.engine.node import Node

_PLACE = 2e-9  # s for one synset of an image, each time: 3 s for 37,000 images, 2,000 and 21 times


def need(node: Node, shapes: Shapes) -> Need:
    """The synsets above each top image [N, t], once and permuted; about twice as many synsets as
    classes. Held: them four times, a byte each. Disk: a row a latent."""
    labels = one(node, "labels")
    assert labels is not None
    size = vision_sae(labels, shapes)
    if size is None:
        return UNKNOWN
    places = float(size.s * labels.settings["labels"]["top_k"]) * 2 * classes(node)
    seconds = START + _PLACE * places * (1 + node.settings["permutations"])
    return Need(SMALL + ROW / 8 * size.s, 0.0, seconds, 4 * places)
