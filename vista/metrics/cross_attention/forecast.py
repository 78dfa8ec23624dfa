"""What a job of this metric will need."""

from __future__ import annotations

from vista.config.cross_attention import CrossAttentionSettings
from vista.engine.forecast import formulas
from vista.engine.forecast.need import SMALL, TORCH_START, UNKNOWN, Need
from vista.engine.forecast.shapes import Shapes, many, one
from vista.engine.forecast.shared import text_tokens
from vista.engine.node import Node


def need(node: Node, shapes: Shapes) -> Need:
    """Of each weight a training: two passes over the captions of two splits, with the own image and
    another one; and the captions of one split by the language model alone."""
    shape, vision = shapes.llm(node), shapes.features(node)
    settings, device = node.order["cross_attention"], shapes.llm_device(node)
    trained = many(node, "trained")
    if shape is None or vision is None:
        return UNKNOWN
    own = CrossAttentionSettings.model_validate(trained[0].order["cross_attention"])
    blocks = len(own.blocks) if own.blocks else max(1, shape.blocks - 1)
    most, batch, patches = settings["max_length"], settings["batch_size"], vision.patches
    d, d_vision = shape.d_model, vision.d_vision
    answer = formulas.text_tokens(most, 0)
    memory = device.memory(
        formulas.caption_memory(shape, device, batch, answer, answer)
        + formulas.cross_attention_memory(blocks, own.heads, d, batch, answer, patches)
        + 4 * formulas.cross_attention_parameters(blocks, d, d_vision)
    )
    records = one(node, "records")
    rows = [shapes.rows(records, settings[name]) for name in ("split", "fit_split")]
    if None in rows:
        return Need(SMALL, memory, None)
    measured, fitted = (min(some or 0, settings["max_images"]) for some in rows)
    passes = 2 * len(trained) * (measured + fitted)
    text = text_tokens(node, shapes, most, 0, first=True)
    tokens = (passes + measured) * text
    flops = formulas.forward_flops(shape, tokens, tokens)
    read = formulas.cross_attention_flops(blocks, d, d_vision, passes * text, passes * patches)
    return Need(SMALL, memory, TORCH_START + device.seconds(flops, read))
