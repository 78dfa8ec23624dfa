"""Request of the metric: the default one, with the blocks that have an SAE."""

from __future__ import annotations

from dataclasses import replace

from vista.config.metric import Metric, MetricSettings
from vista.engine.places import Place, Request, default_request


def request(metric: Metric, settings: MetricSettings, place: Place) -> Request:
    """Return the default request with the blocks that have an SAE, where latents are read, too."""
    default = default_request(metric, settings, place)
    llm = place.builder.config.llms[place.columns["llm"]]
    return replace(default, settings={**default.settings, "layers": sorted(llm.saes.layers)})
