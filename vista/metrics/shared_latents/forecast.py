"""What a job of this metric will need. Symbols: d channels, s latents, N images."""

from __future__ import annotations

from vista.engine.forecast.need import Need
from vista.engine.forecast.shapes import Shapes, one
from vista.engine.forecast.shared import text_tokens
from vista.engine.node import Node


def need(node: Node, shapes: Shapes) -> Need:
    """Held: what is ranked of the texts' latents at one layer, about 110 bytes each."""
    latents = one(node, "latents")
    assert latents is not None
    settings = latents.order["latents"]
    rows = shapes.rows(one(node, "records"), settings["split"])
    saes, vision = shapes.saes(latents), shapes.features(node)
    if rows is None or saes is None or vision is None:
        return Need(held=None)
    text = text_tokens(latents, shapes, settings["max_length"], vision.patches)
    return Need(held=110.0 * rows * text * max(saes.active))
