"""Formulas of the metrics' stages.

Each function is named after its stage. Symbols: d channels, s latents, N images.
"""

from __future__ import annotations

from vista.engine.forecast import formulas
from vista.engine.forecast.formulas import Dictionaries
from vista.engine.forecast.need import ROW, SMALL, START, TORCH_START, UNKNOWN, Need
from vista.engine.forecast.shapes import Shapes, all_known, one
from vista.engine.forecast.shared import (
    PART,
    classes,
    encoding_need,
    generation_need,
    image_level,
    probe_flops,
    vision_sae,
)
from vista.engine.node import Node

_SKLEARN = 1.2  # s to load scikit-learn and to fit a probe on some hundred patches
_LBFGS = 25  # vectors that L-BFGS keeps
_ABLATED = 4  # as vista/stages/diffusion_steering.py has it, which is not imported: numpy


def probe(_node: Node, _shapes: Shapes) -> Need:
    """Loads scikit-learn besides."""
    return Need(seconds=START + _SKLEARN)


def caption(node: Node, shapes: Shapes) -> Need:
    """Three passes (loss, loss with shuffled images, prompt), then greedy decoding."""
    shape, vision = shapes.llm(node), shapes.features(node)
    settings, device = node.order["caption"], shapes.device(node.order["llm"])
    if shape is None or vision is None:
        return Need(SMALL, None, None)
    text = formulas.text_tokens(settings["max_length"], vision.patches)
    batch, new_tokens = settings["batch_size"], settings["max_new_tokens"]
    length, answer = vision.patches + text, min(text, new_tokens)
    memory = formulas.caption_memory(shape, device, batch, length, answer)
    rows, seconds = shapes.rows(one(node, "records"), settings["split"]), None
    if rows is not None:
        passes = 3 * formulas.forward_flops(shape, rows * length, rows * text)
        decoding = device.decoding_seconds(-(-rows // batch) * new_tokens, shape)
        seconds = TORCH_START + device.seconds(passes) + decoding
    return Need(SMALL, device.memory(memory), seconds)


def monosemanticity(node: Node, shapes: Shapes) -> Need:
    """The SAE and the random dictionary encode every patch. Held: sums over images of activation x
    embedding, [s, d] in float64, five at once, and latents of a part."""
    size, other = vision_sae(node, shapes), shapes.features(node, "other")
    images = shapes.rows(one(node, "records"), node.settings["split"])
    if size is None or images is None or other is None:
        return UNKNOWN
    d, s, patches = size
    held = 40.0 * s * other.d_vision + 24.0 * PART * s
    disk = 10 * SMALL + ROW / 16 * s
    return encoding_need(node, shapes, disk, 4.0 * d * s * patches * images, held=held)


def ood_detection(node: Node, shapes: Shapes) -> Need:
    """Encoded and decoded by the SAE, encoded by the random one; neighbours in latents of both and
    in features. Held: four times the latents of what is fitted on [N, s]."""
    level = image_level(node, shapes)
    if level is None:
        return UNKNOWN
    (d, s, patches), fitted, judged = level
    flops = 2.0 * fitted * judged * (2 * s + d)
    # Randomised principal components pass over the matrix about ten times.
    flops += 20.0 * fitted * s * min(node.settings["components"], fitted, s)
    flops += probe_flops(node, fitted, d)
    held = 16.0 * s * (fitted + PART)
    encoding = 6.0 * d * s * patches * (fitted + judged)
    return encoding_need(node, shapes, SMALL + ROW / 2 * judged, encoding, flops, held)


def ood_generalization(node: Node, shapes: Shapes) -> Need:
    """As `ood_detection`, then a probe on each representation. Held: the past of L-BFGS besides."""
    level = image_level(node, shapes)
    if level is None:
        return UNKNOWN
    (d, s, patches), fitted, judged = level
    width = 2 * s + d + 3 * sum(node.settings["latents"])
    flops = probe_flops(node, fitted, width)
    held = 14.0 * s * (fitted + PART) + 8.0 * _LBFGS * classes(node) * s
    encoding = 6.0 * d * s * patches * (fitted + judged)
    return encoding_need(node, shapes, SMALL, encoding, flops, held)


def ontology(node: Node, shapes: Shapes) -> Need:
    """Top images of the features' channels and of a random dictionary, over the labels' split."""
    labels, size = one(node, "labels"), vision_sae(node, shapes)
    assert labels is not None
    images = shapes.rows(one(node, "records"), labels.settings["labels"]["split"])
    if size is None or images is None:
        return UNKNOWN
    d, s, patches = size
    encoding = 2.0 * d * (d + s) * patches * images
    return encoding_need(node, shapes, SMALL + ROW / 8 * (2 * s + d), encoding)


def image_attributes(node: Node, shapes: Shapes) -> Need:
    """Three splits by the SAE, the random dictionary and the SAE's random latents. Held: the
    latents of all three [N, s], and once more permuted."""
    size, settings, records = vision_sae(node, shapes), node.settings, one(node, "records")
    splits = (settings[key] for key in ("fit_split", "rank_split", "split"))
    counts = all_known(shapes.rows(records, split) for split in splits)
    if size is None or counts is None:
        return UNKNOWN
    d, s, patches = size
    images = sum(min(count, settings["images"] or count) for count in counts)
    encoding = 4.0 * d * s * patches * images
    return encoding_need(node, shapes, SMALL, encoding, held=8.0 * s * images)


def shared_latents(node: Node, shapes: Shapes) -> Need:
    """Held: what is ranked of the texts' latents at one layer, about 110 bytes each."""
    latents = one(node, "latents")
    assert latents is not None
    settings = latents.order["latents"]
    rows = shapes.rows(one(node, "records"), settings["split"])
    saes, vision = shapes.saes(latents), shapes.features(node)
    if rows is None or saes is None or vision is None:
        return Need(held=None)
    text = formulas.text_tokens(settings["max_length"], vision.patches)
    return Need(held=110.0 * rows * text * max(saes.active))


def logit_lens(node: Node, shapes: Shapes) -> Need:
    """A pass over the visual tokens alone, and the head at every layer. Disk: a word and its
    probability, 8 bytes, of each token and layer."""
    shape, vision, layers = shapes.llm(node), shapes.features(node), node.settings["layers"]
    settings, device = node.order["logit_lens"], shapes.device(node.order["llm"])
    if shape is None or vision is None:
        return Need(SMALL, None, None)
    read, batch = Dictionaries(layers, [], []), settings["batch_size"]
    memory = device.memory(formulas.reading_memory(shape, device, read, batch, vision.patches))
    rows = shapes.rows(one(node, "records"), settings["split"])
    if rows is None:
        return Need(None, memory, None)
    tokens = rows * vision.patches
    flops = formulas.forward_flops(shape, tokens, tokens * len(layers))
    disk = SMALL + 8.0 * tokens * len(layers)
    return Need(disk, memory, TORCH_START + device.seconds(flops))


def diffusion_steering(node: Node, shapes: Shapes) -> Need:
    """Images of each target: three methods at every coefficient and the edited prompt on those of
    development, four on those of test, and what is ablated; the unedited ones besides."""
    settings = node.settings["steering"]
    development, test = settings["development"], settings["test"]
    a_target = development * (3 * len(settings["coefficients"]) + 1) + 4 * (test + _ABLATED)
    targets = len(settings["attributes"]) * settings["targets"]
    return generation_need(node, shapes, targets * a_target + development + test)


def attribute_discovery(node: Node, shapes: Shapes) -> Need:
    """By a proposal, a random direction and a random latent in its place, and unedited."""
    settings = node.settings["discovery"]
    return generation_need(node, shapes, (3 * settings["proposals"] + 1) * settings["prompts"])
