"""What a job of this metric will need. Symbols: v channels of the encoder that judges."""

from __future__ import annotations

from vista.engine.forecast.need import ROW, SMALL, TORCH_START, UNKNOWN, Need
from vista.engine.forecast.shapes import Shapes, one
from vista.engine.forecast.shared import vision_sae
from vista.engine.node import Node

_VALUE = 2e-9  # s to read one value of stored features and add it to a mean


def need(node: Node, shapes: Shapes) -> Need:
    """The mean features of the split's images, and of the top images, all in another encoder, held
    in float64; the answers are there already (`label_by_steering`). Disk: a row an answer."""
    records, labels, steering = (one(node, role) for role in ("records", "labels", "steering"))
    assert labels is not None
    assert steering is not None
    size, other, own = vision_sae(labels, shapes), shapes.features(node, "other"), labels.settings
    images = shapes.rows(records, node.settings["split"])
    shown = shapes.rows(records, own["labels"]["split"])
    if size is None or other is None or images is None or shown is None:
        return UNKNOWN
    answers = min(steering.settings["steer"]["latents"] or size.s, size.s)
    means = images + min(shown, answers * own["labels"]["top_k"])
    seconds = TORCH_START + _VALUE * means * other.patches * other.d_vision
    disk = SMALL + ROW / 2 * answers
    return Need(disk, 0.0, seconds, 8.0 * means * other.d_vision)
