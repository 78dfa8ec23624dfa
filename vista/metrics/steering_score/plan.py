"""What the metric asks for: the answers by steering, and the features of another encoder."""

from __future__ import annotations

from dataclasses import replace

from vista.config.metric import Metric
from vista.config.probing_checks import judge_of
from vista.engine.places import Place, Request, default_request
from vista.engine.vision_sae_nodes import steering_labels
from vista.metrics.steering_score import SteeringScoreSettings


def request(metric: Metric, settings: SteeringScoreSettings, place: Place) -> Request | None:
    """Return the default request with both; None where no other encoder is there."""
    builder = place.builder
    judge = judge_of(settings.judged_by, builder.config.encoders, place.encoder)
    if judge is None:
        return None
    default = default_request(metric, settings, place)
    llm = str(place.columns["llm"])
    answers = steering_labels(builder, place.name, llm, place.inputs, settings.steering)
    inputs = {**default.inputs, "steering": answers, "other": builder.features[judge]}
    return replace(default, inputs=inputs)
