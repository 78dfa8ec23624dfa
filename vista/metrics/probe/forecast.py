"""What a job of this metric will need. Symbols: d channels, s latents, N images."""

from __future__ import annotations

from vista.engine.forecast.need import START, Need
from vista.engine.forecast.shapes import Shapes
from vista.engine.node import Node

_SKLEARN = 1.2  # s to load scikit-learn and to fit a probe on some hundred patches


def need(_node: Node, _shapes: Shapes) -> Need:
    """Loads scikit-learn besides."""
    return Need(seconds=START + _SKLEARN)
