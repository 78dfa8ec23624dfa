"""What a job of this metric will need."""

from __future__ import annotations

from vista.engine.forecast.need import Need
from vista.engine.forecast.shapes import Shapes
from vista.engine.node import Node
from vista.metrics.logit_lens.forecast import readout_need


def need(node: Node, shapes: Shapes) -> Need:
    """As the logit lens, with the input embedding in place of the head, at one layer more."""
    return readout_need(node, shapes, "embedding_lens", entering=True)
