"""What the metric asks for: the tokenizer alone of the language model."""

from __future__ import annotations

from dataclasses import replace

from vista.config.metric import Metric, MetricSettings
from vista.engine.places import Order, Place, default_order


def order(metric: Metric, settings: MetricSettings, place: Place) -> Order:
    """Return the default order; of the language model's settings its source alone is read."""
    default = default_order(metric, settings, place)
    tokenizer = {"source": default.settings["llm"]["source"]}
    return replace(default, settings={**default.settings, "llm": tokenizer})
