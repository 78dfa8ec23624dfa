"""What the metric asks for: the labels by steering."""

from __future__ import annotations

from dataclasses import replace

from vista.config.metric import Metric
from vista.engine.places import Place, Request, default_request
from vista.engine.vision_sae_nodes import steering_labels
from vista.metrics.vision_labels import VisionLabelsSettings


def request(metric: Metric, settings: VisionLabelsSettings, place: Place) -> Request:
    """Return the default request with the labels by steering at this point."""
    default = default_request(metric, settings, place)
    llm = str(place.columns["llm"])
    node = steering_labels(place.builder, place.name, llm, place.inputs, settings.steering)
    return replace(default, inputs={**default.inputs, "steering": node})
