"""Request of the metric: the default one, with the layers that are read."""

from __future__ import annotations

from dataclasses import replace

from vista.config.metric import Metric, MetricSettings
from vista.engine.places import Place, Request, default_request


def request(metric: Metric, settings: MetricSettings, place: Place) -> Request:
    """Return the default request with the layers that have an SAE, so that the readouts by words
    and by latents are compared on the same layers."""
    default = default_request(metric, settings, place)
    llm = place.builder.config.llms[place.columns["llm"]]
    return replace(default, settings={**default.settings, "layers": sorted(llm.saes.layers)})
