"""What a job of this metric will need. Symbols: d channels, s latents, N images."""

from __future__ import annotations

from vista.engine.forecast.need import SMALL, UNKNOWN, Need
from vista.engine.forecast.shapes import Shapes, all_known, one
from vista.engine.forecast.shared import encoding_need, vision_sae
from vista.engine.node import Node


def need(node: Node, shapes: Shapes) -> Need:
    """Three splits by the SAE, the random dictionary and the SAE's random latents. Held: the
    latents of all three [N, s], and once more permuted."""
    size, settings, records = vision_sae(node, shapes), node.settings, one(node, "records")
    splits = (settings[key] for key in ("fit_split", "rank_split", "split"))
    counts = all_known(shapes.rows(records, split) for split in splits)
    if size is None or counts is None:
        return UNKNOWN
    d, s, patches = size
    images = sum(min(count, settings["images"] or count) for count in counts)
    encoding = 4.0 * d * s * patches * images
    return encoding_need(node, shapes, SMALL, encoding, held=8.0 * s * images)
