"""What a job of this metric will need."""

from __future__ import annotations

from vista.engine.forecast.need import Need
from vista.engine.forecast.shapes import Shapes, one
from vista.engine.node import Node
from vista.metrics.logit_lens.forecast import readout_need


def need(node: Node, shapes: Shapes) -> Need:
    """As the logit lens, with the vectors of the index in place of the head, at one layer more: at
    most as many as text tokens are read, a layer."""
    index = one(node, "index")
    assert index is not None
    settings = index.settings["index"]
    vectors = float(settings["tokens"] * len(settings["layers"]))
    return readout_need(node, shapes, "latent_lens", entering=True, vectors=vectors)
