"""What the metric asks for: the text beside the records; nothing where no model reads any."""

from __future__ import annotations

from dataclasses import replace

from vista.config.metric import Metric, MetricSettings
from vista.engine.places import Place, Request, default_request


def request(metric: Metric, settings: MetricSettings, place: Place) -> Request | None:
    """Return the default request with the text; None where no language model reads any."""
    if not place.builder.config.llms:
        return None
    default = default_request(metric, settings, place)
    return replace(default, inputs={**default.inputs, "text": place.builder.text})
