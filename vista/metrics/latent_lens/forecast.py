"""What a job of this metric will need."""

from __future__ import annotations

from dataclasses import replace

from vista.config.text_index import TextIndexSettings
from vista.engine.forecast.need import Need
from vista.engine.forecast.shapes import Shapes, one
from vista.engine.node import Node
from vista.metrics.logit_lens.forecast import readout_need


def need(node: Node, shapes: Shapes) -> Need:
    """As the logit lens, with the vectors of the index in place of the head, at one layer more.
    Held: the vectors in float16, of which a GPU has a copy."""
    index, shape = one(node, "index"), shapes.llm(node)
    assert index is not None
    settings = TextIndexSettings.model_validate(index.settings["index"])
    vectors = settings.most_vectors(shape.vocabulary if shape else None)
    need = readout_need(node, shapes, "latent_lens", entering=True, vectors=vectors)
    if shape is None or need.memory is None:
        return replace(need, held=None)
    held = 2.0 * vectors * shape.d_model
    copied = shapes.llm_device(node).memory(held) or 0.0
    return replace(need, memory=need.memory + copied, held=held)
