"""Formulas of the stages that make what metrics read: data, models, SAEs, features, latents.

Each function is named after its stage. Symbols: d channels, s latents.
"""

from __future__ import annotations

from pathlib import Path

from vista.engine.forecast import formulas
from vista.engine.forecast.need import ROW, SMALL, START, TORCH_START, UNKNOWN, Need
from vista.engine.forecast.shapes import (
    Shapes,
    one,
)
from vista.engine.forecast.shared import (
    encoding_need,
    on_text,
    table_need,
    vision_sae,
)
from vista.engine.node import Node

_REPORT = 1e7
_FIGURES = 4.0  # s to draw the figures: 2 to 4 measured


def text(node: Node, shapes: Shapes) -> Need:
    """Disk: drawn documents or captions by their number, the user's text files by their size."""
    world, captioned = one(node, "world"), one(node, "records")
    if world is not None:
        return Need(disk=ROW * sum(world.settings["documents"].values()))
    if captioned is not None:
        return table_need(shapes.images(captioned))
    files = [Path(name) for name in node.files]
    there = bool(files) and all(file.is_file() for file in files)
    return Need(disk=sum(file.stat().st_size for file in files) if there else None)


def check_sae(node: Node, shapes: Shapes) -> Need:
    """One pass over held-out tokens, encoded and decoded."""
    return on_text(node, shapes, "check", SMALL, decoded=True)


def check_vision_sae(node: Node, shapes: Shapes) -> Need:
    """Held-out patches encoded and decoded."""
    size = vision_sae(node, shapes)
    if size is None:
        return UNKNOWN
    flops = 4.0 * size.d * size.s * node.settings["check"]["patches"]
    return encoding_need(node, shapes, SMALL, flops)


def directions(_node: Node, _shapes: Shapes) -> Need:
    """What a method computes is not counted."""
    return Need(seconds=TORCH_START)


def edit_captions(node: Node, shapes: Shapes) -> Need:
    """Each edit of an image, and none: a pass for the loss and one over the prompt, then greedy
    decoding."""
    shape, vision = shapes.llm(node), shapes.features(node)
    settings, device = node.order["edit"], shapes.device(node.order["llm"])
    if shape is None or vision is None:
        return Need(SMALL, None, None)
    text = formulas.text_tokens(settings["max_length"], vision.patches)
    batch, new_tokens = settings["batch_size"], settings["max_new_tokens"]
    length, answer = vision.patches + text, min(text, new_tokens)
    memory = device.memory(formulas.caption_memory(shape, device, batch, length, answer))
    rows = shapes.rows(one(node, "records"), settings["split"])
    if rows is None:
        return Need(SMALL, memory, None)
    places = len(settings["tokens"]) + (settings["outside"] and "object" in settings["tokens"])
    variants = places * len(settings["blocks"] or [None]) * len(settings["coefficients"])
    rows = min(rows, settings["max_images"] or rows) * (variants + 1)
    flops = 2 * formulas.forward_flops(shape, rows * length, rows * text)
    decoding = device.decoding_seconds(-(-rows // batch) * new_tokens, shape)
    return Need(SMALL + ROW * rows, memory, TORCH_START + device.seconds(flops) + decoding)


def report(_node: Node, _shapes: Shapes) -> Need:
    """Tables and figures."""
    return Need(disk=_REPORT, seconds=START + _FIGURES)
