"""What the metric asks for: the layers that it reads, beside the default."""

from __future__ import annotations

from dataclasses import replace

from vista.config.metric import Metric, MetricSettings
from vista.engine.places import Order, Place, default_order


def order(metric: Metric, settings: MetricSettings, place: Place) -> Order:
    """Return the default order with the layers that have an SAE, to compare the readouts."""
    default = default_order(metric, settings, place)
    llm = place.builder.config.llms[place.columns["llm"]]
    return replace(default, settings={**default.settings, "layers": sorted(llm.saes.layers)})
