"""Request of the metrics that read the head of visual words: only projectors that have one."""

from __future__ import annotations

from vista.config.metric import Metric, MetricSettings
from vista.engine.node import Node
from vista.engine.places import Place, Request, default_request


def request(metric: Metric, settings: MetricSettings, place: Place) -> Request | None:
    """Return the default request, or None for a projector that was trained without a head."""
    projector = place.inputs["projector"]
    if not isinstance(projector, Node) or not projector.settings.get("words_weight"):
        return None
    return default_request(metric, settings, place)
