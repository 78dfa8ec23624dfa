"""What the metric asks for: the tokenizer alone of the language model."""

from __future__ import annotations

from dataclasses import replace

from vista.config.metric import Metric, MetricSettings
from vista.engine.places import Place, Request, default_request


def request(metric: Metric, settings: MetricSettings, place: Place) -> Request:
    """Return the default request; of the language model's settings its source alone is read."""
    default = default_request(metric, settings, place)
    tokenizer = {"source": default.settings["llm"]["source"]}
    values = {**default.settings, "llm": tokenizer}
    return replace(default, settings=values, files=settings.files)
