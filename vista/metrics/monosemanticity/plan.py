"""What the metric asks for: the features of another encoder, that judges."""

from __future__ import annotations

from dataclasses import replace

from vista.config.metric import Metric
from vista.config.probing_checks import judge_of
from vista.engine.places import Place, Request, default_request
from vista.metrics.monosemanticity import MonosemanticitySettings


def request(metric: Metric, settings: MonosemanticitySettings, place: Place) -> Request | None:
    """Return the default request with the judging encoder's features; None where none judges."""
    builder = place.builder
    judge = judge_of(settings.judged_by, builder.config.encoders, place.encoder)
    if judge is None:
        return None
    default = default_request(metric, settings, place)
    return replace(default, inputs={**default.inputs, "other": builder.features[judge]})
