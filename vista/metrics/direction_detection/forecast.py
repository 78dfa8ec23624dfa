"""What a job of this metric will need. Symbols: d width of the stream, n sampled tokens of a split,
c classes, L blocks."""

from __future__ import annotations

from vista.engine.forecast import fitted
from vista.engine.forecast.need import ROW, SMALL, TORCH_START, UNKNOWN, Need
from vista.engine.forecast.shapes import Shapes, one
from vista.engine.forecast.shared import classes
from vista.engine.node import Node

_RANK = 1e-7  # s to rank one token's projection among the others: 1 ms for 10,000 measured


def need(node: Node, shapes: Shapes) -> Need:
    """A pass over the visual tokens of both splits up to the highest block; each method on what is
    not kept for the combination, a block; ranks of n tokens for each class, method (a random one
    besides) and block (all together besides). Held: the tokens of both splits at every block in
    float32, those of the fit split twice, and of one block in float64."""
    shape, vision = shapes.llm(node), shapes.features(node)
    settings, layers = node.order["direction_detection"], node.settings["layers"]
    if shape is None or vision is None:
        return UNKNOWN
    device, visual, d = shapes.llm_device(node), vision.patches, shape.d_model
    memory = device.memory(
        fitted.stream_memory(shape, device, layers, settings["batch_size"], visual)
    )
    records = one(node, "records")
    rows = [shapes.rows(records, settings[name]) for name in ("fit_split", "split")]
    if None in rows:
        return Need(SMALL, memory, None, None)
    images = [min(some or 0, settings["max_images"] or some or 0) for some in rows]
    fit, test = (
        fitted.sampled_tokens(some, visual, settings["patches_per_image"]) for some in images
    )
    named, base, methods = classes(node), fit * (1 - settings["stacked"]), settings["methods"]
    fitting = sum(fitted.fitting_seconds(name, shapes.cpu, base, d, named) for name in methods)
    scores = named * (len(methods) + 1) * (len(layers) + 1)
    reading = device.seconds(fitted.stream_flops(shape, sum(images) * visual, layers))
    seconds = TORCH_START + reading + len(layers) * fitting + _RANK * test * scores
    held = 4.0 * d * (len(layers) * max(fit + 2 * test, 2 * fit + test) + 4 * fit)
    return Need(SMALL + ROW / 8 * scores, memory, seconds, held)
