"""What a job of this metric, and of the other readouts by words, will need."""

from __future__ import annotations

from vista.engine.forecast import formulas
from vista.engine.forecast.formulas import Dictionaries
from vista.engine.forecast.need import SMALL, TORCH_START, Need
from vista.engine.forecast.shapes import Shapes, one
from vista.engine.node import Node


def need(node: Node, shapes: Shapes) -> Need:
    """A pass over the visual tokens alone, and the head at every layer."""
    return readout_need(node, shapes, "logit_lens")


def readout_need(
    node: Node, shapes: Shapes, name: str, entering: bool = False, vectors: float | None = None
) -> Need:
    """What a readout by words takes: a pass over the visual tokens alone, and at every layer a
    product with each row of the head, or with each of the vectors. Disk: a word and its strength, 8
    bytes, of each token and layer.

    Args:
        node: The job's node.
        shapes: Sizes of models and data.
        name: Name of the metric.
        entering: Whether the stream that enters block 0 is read, too.
        vectors: Vectors that tokens are compared with; None: as many as the vocabulary has tokens.
    """
    shape, vision, layers = shapes.llm(node), shapes.features(node), node.settings["layers"]
    settings, device = node.order[name], shapes.llm_device(node)
    if shape is None or vision is None:
        return Need(SMALL, None, None)
    read, batch = Dictionaries(layers, [], []), settings["batch_size"]
    memory = device.memory(formulas.reading_memory(shape, device, read, batch, vision.patches))
    rows = shapes.rows(one(node, "records"), settings["split"])
    if rows is None:
        return Need(None, memory, None)
    tokens = rows * vision.patches
    n_layers = len(layers) + entering
    times = n_layers if vectors is None else n_layers * vectors / shape.vocabulary
    flops = formulas.forward_flops(shape, tokens, tokens * times)
    return Need(SMALL + 8.0 * tokens * n_layers, memory, TORCH_START + device.seconds(flops))
