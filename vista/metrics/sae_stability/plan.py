"""What the metric asks for: beside its inputs, which dictionary each of them is."""

from __future__ import annotations

from dataclasses import replace

from vista.config.metric import Metric, MetricSettings
from vista.engine.places import Place, Request, default_request


def request(metric: Metric, settings: MetricSettings, place: Place) -> Request:
    """Return the default request with the names and recipes of the place's dictionaries."""
    default = default_request(metric, settings, place)
    return replace(default, settings={**default.settings, **place.settings})
