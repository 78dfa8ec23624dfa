"""Request of the metric: the trainings that it measures, which no projector belongs to."""

from __future__ import annotations

from dataclasses import replace

from vista.config.metric import Metric
from vista.engine.node import Node
from vista.engine.places import Place, Request, default_request
from vista.metrics.cross_attention import CrossAttentionMetricSettings


def request(metric: Metric, settings: CrossAttentionMetricSettings, place: Place) -> Request | None:
    """Return the default request with a training for each weight; None but at the smallest SAE
    weight of each encoder, language model and seed, and at controls."""
    columns = place.columns
    same = ("encoder", "llm", "seed")
    weights = [
        point.sae_weight
        for point in place.builder.config.points()
        if all(getattr(point, name) == columns[name] for name in same)
    ]
    if columns["control"] is not None or columns["sae_weight"] != min(weights):
        return None
    default = default_request(metric, settings, place)
    own = dict(default.settings[metric.name])
    training = own.pop("train")
    inputs = {name: default.inputs[name] for name in metric.reads if name in default.inputs}
    trained = tuple(
        Node(
            "train_cross_attention",
            "{encoder}-{llm}-a{weight:g}-s{seed}".format(**{**columns, "weight": weight}),
            {
                "llm": default.settings["llm"],
                "cross_attention": training,
                "weight": weight,
                "seed": columns["seed"],
            },
            inputs,
            files=default.files,
        )
        for weight in settings.weights
    )
    own |= {name: training[name] for name in ("region", "mask_cover", "max_length")}
    return replace(
        default,
        settings={**default.settings, metric.name: own},
        inputs={**default.inputs, "trained": trained},
    )
