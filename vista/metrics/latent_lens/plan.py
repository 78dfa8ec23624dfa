"""Request of the metric: the default one, with the layers that are read, and the index of words in
context, which all points of a language model share."""

from __future__ import annotations

from dataclasses import replace

from vista.config.metric import Metric
from vista.engine.node import Node, dump
from vista.engine.places import Place, Request
from vista.metrics.latent_lens import LatentLensSettings
from vista.metrics.logit_lens.plan import request as request_of_layers


def request(metric: Metric, settings: LatentLensSettings, place: Place) -> Request:
    """Return the request of the logit lens with the index beside it."""
    by_layers = request_of_layers(metric, settings, place)
    index = _index_node(settings, place, by_layers.settings["layers"])
    return replace(by_layers, inputs={**by_layers.inputs, "index": index})


def _index_node(settings: LatentLensSettings, place: Place, layers: list[int]) -> Node:
    builder, name = place.builder, place.columns["llm"]
    order, inputs = builder.read_text(name)
    index = dump(settings.index)
    index["layers"] = sorted(set(index["layers"] or layers))
    return Node("index_text", name, {**order, "index": index}, {**inputs, "text": builder.text})
