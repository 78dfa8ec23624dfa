"""Formulas of the stages that make what metrics read: data, models, SAEs, features, latents.

Each function is named after its stage. Symbols: d channels, s latents.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from vista.config.projector import TrainingStage
from vista.config.published import DOWNLOADS, SAE_BYTES, STORED_FLOAT32
from vista.engine.forecast import formulas
from vista.engine.forecast.need import ROW, SMALL, START, TORCH_START, UNKNOWN, Need
from vista.engine.forecast.shapes import (
    STANDIN_DOCUMENT,
    Shapes,
    all_known,
    job_count,
    many,
    one,
)
from vista.engine.forecast.shared import (
    encoding_need,
    on_text,
    table_need,
    text_sae_bytes,
    vision_sae,
)
from vista.engine.node import Node

_REPORT = 1e7
_FIGURES = 4.0  # s to draw the figures: 2 to 4 measured
_PIXEL = 0.85e-6  # s to draw a pixel of a scene and pack it: 8.1 s for 3,700 of 48 x 48 measured
_RECORD = 3.5e-4  # s to read an image's record and write it: 2.3 s for 3,700 measured
_PER_TOP_IMAGE = 20.0  # bytes of a row of top.parquet, twice (the labels tell it too)


def fetch_model(node: Node, shapes: Shapes) -> Need:
    """Disk: parameters x the bytes of each as published."""
    shape = shapes.vision(node) or shapes.llm(node)
    item = 4 if node.settings["repo"] in STORED_FLOAT32 else 2
    return Need(disk=None if shape is None else shape.loaded * item, seconds=0.0)


def fetch_sae(node: Node, shapes: Shapes) -> Need:
    """Disk: encoder and decoder in the dtype of the release."""
    release = node.settings["release"]
    item = next((b for name, b in SAE_BYTES.items() if release.startswith(name)), None)
    return Need(disk=text_sae_bytes(shapes.imports.get(node.id), item, shapes), seconds=0.0)


def fetch_labels(_node: Node, _shapes: Shapes) -> Need:
    """The size of an export is not known before it is there."""
    return Need(disk=None, seconds=0.0)


def fetch_data(node: Node, _shapes: Shapes) -> Need:
    """Disk: sizes of published files; images hardly grow when they are unpacked."""
    urls = [file["url"] for file in node.settings["files"]]
    sizes = all_known(
        next((size for end, size in DOWNLOADS.items() if url.endswith(end)), None) for url in urls
    )
    return Need(disk=None if sizes is None else sum(sizes), seconds=0.0)


def draw_world(node: Node, _shapes: Shapes) -> Need:
    """Disk: PNG files of at most three bytes a pixel."""
    settings = node.settings
    pixels = settings["image_size"] ** 2 * sum(settings["scenes"].values())
    return Need(disk=3.0 * pixels, seconds=START + _PIXEL * pixels)


def records(node: Node, shapes: Shapes) -> Need:
    """Disk and time: a row an image."""
    images = shapes.images(node)
    seconds = None if images is None else START + _RECORD * images.total
    return replace(table_need(images), seconds=seconds)


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


def train_encoder(node: Node, shapes: Shapes) -> Need:
    """Disk: weights in float32. Time: 6 FLOP a parameter and token of each step."""
    shape, settings = shapes.vision(node), node.settings
    if shape is None:
        return UNKNOWN
    tokens = settings["steps"] * settings["batch_size"] * (shape.patches + shape.prefix)
    seconds = TORCH_START + shapes.cpu.seconds(6 * shape.parameters * tokens)
    return Need(shape.loaded * 4, 0.0, seconds)


def train_llm(node: Node, shapes: Shapes) -> Need:
    """Disk: weights in float32. Time: 6 FLOP a parameter and token of each step."""
    shape, settings = shapes.llm(node), node.settings
    if shape is None:
        return UNKNOWN
    length = min(settings["max_length"], STANDIN_DOCUMENT)
    tokens = settings["steps"] * settings["batch_size"] * length
    seconds = TORCH_START + shapes.cpu.seconds(6 * shape.parameters * tokens)
    return Need(shape.parameters * 4, 0.0, seconds)


def train_sae(node: Node, shapes: Shapes) -> Need:
    """Disk: encoder and decoder in float32. Time: 6 FLOP a parameter and token of each step."""
    settings, d_model = node.settings["sae"], shapes.d_model(node)
    if d_model is None:
        return UNKNOWN
    size = formulas.sae_bytes(d_model, settings["d_sae"])
    device = shapes.device(node.order["llm"])
    flops = 1.5 * size * settings["steps"] * settings["batch_tokens"]
    return Need(size, device.memory(None), TORCH_START + device.seconds(0, flops))


def import_sae(node: Node, shapes: Shapes) -> Need:
    """Disk: encoder and decoder in float32."""
    return Need(disk=text_sae_bytes(node, 4, shapes))


def check_sae(node: Node, shapes: Shapes) -> Need:
    """One pass over held-out tokens, encoded and decoded."""
    return on_text(node, shapes, "check", SMALL, decoded=True)


def label_latents(node: Node, shapes: Shapes) -> Need:
    """One pass over tokens, encoded. Disk: a row a latent."""
    saes = shapes.saes(node, "sae")
    disk = None if saes is None else SMALL + ROW * saes.latents
    return on_text(node, shapes, "labels", disk, decoded=False)


def import_labels(node: Node, shapes: Shapes) -> Need:
    """Disk: a row a latent."""
    d_sae = shapes.d_sae(node.parents()[0])
    return Need(disk=None if d_sae is None else ROW * d_sae)


def features(node: Node, shapes: Shapes) -> Need:
    """One pass over every different image."""
    shape, settings = shapes.vision(node), node.order["encoder"]
    images, device = shapes.images(one(node, "records")), shapes.device(settings)
    memory = formulas.features_memory(shape, device, settings["batch_size"]) if shape else None
    if shape is None or images is None:
        return Need(None, device.memory(memory), None)
    flops = 2 * shape.parameters * (shape.patches + shape.prefix) * images.images
    disk = formulas.feature_bytes(images.images, shape)
    seconds = TORCH_START * job_count(node) + device.seconds(flops)
    return Need(disk, device.memory(memory), seconds)


def combine_features(node: Node, shapes: Shapes) -> Need:
    """Disk: the features of both encoders once more."""
    shape = shapes.vision(node)
    images = shapes.images(one(many(node, "features")[0], "records"))
    if shape is None or images is None:
        return Need(disk=None)
    return Need(disk=formulas.feature_bytes(images.images, shape))


def train_projector(node: Node, shapes: Shapes) -> Need:
    """Forward and backward of each step. The backward pass goes through the frozen model to the
    visual tokens without gradients of its weights, so it costs as much as the forward. Of several
    processes, which share each batch and a machine's threads, one is counted."""
    shape, vision, saes = shapes.llm(node), shapes.features(node), shapes.saes(node)
    stage = TrainingStage.model_validate(node.order["training"])
    device = shapes.device(node.order["llm"], stage.processes)
    if shape is None or vision is None:
        return UNKNOWN
    size = formulas.projector_parameters(_kind(node), vision.d_vision, shape.d_model)
    if saes is None:
        return Need(4 * size, None, None)
    visual, length = vision.patches, stage.max_length
    batch = -(-stage.batch_size // (stage.processes * stage.machines))
    micro = min(stage.micro_batch or batch, batch)
    memory = formulas.training_memory(shape, device, saes, micro, length, visual, size)
    rows = shapes.rows(one(node, "records"), stage.split)
    seconds = None
    if rows or stage.steps:
        samples = stage.total_steps(rows or stage.batch_size) * batch
        words = formulas.text_tokens(length, visual)
        flops = 2 * samples * formulas.forward_flops(shape, visual + words, words)
        # The rest of the term visits active latents alone.
        term = formulas.sae_flops(shape.d_model, saes, samples * visual, decoded=False)
        coarse = node.settings.get("sae_dtype") == "bfloat16"
        spent = device.seconds(flops + term) if coarse else device.seconds(flops, term)
        seconds = TORCH_START + spent
    return Need(4 * size, device.memory(memory), seconds)


def _kind(node: Node) -> str:
    """The kind of a projector, which the first stage of its training has in its settings."""
    start = one(node, "start")
    projector: Mapping[str, Any] | None = node.settings.get("projector")
    if projector is not None:
        return str(projector["kind"])
    return _kind(start) if start else "linear"


def import_projector(node: Node, shapes: Shapes) -> Need:
    """Disk: the larger kind of projector in float32."""
    shape, vision = shapes.llm(node), shapes.features(node)
    if shape is None or vision is None:
        return Need(disk=None)
    return Need(disk=4 * formulas.projector_parameters("mlp", vision.d_vision, shape.d_model))


def latents(node: Node, shapes: Shapes) -> Need:
    """A pass with the image and one without, up to the last layer with an SAE; the tokens of both
    are stored."""
    shape, vision, saes = shapes.llm(node), shapes.features(node), shapes.saes(node)
    settings, device = node.order["latents"], shapes.device(node.order["llm"])
    if shape is None or vision is None or saes is None:
        return UNKNOWN
    length = settings["max_length"]
    memory = formulas.reading_memory(shape, device, saes, settings["batch_size"], length)
    rows = shapes.rows(one(node, "records"), settings["split"])
    if rows is None:
        return Need(None, device.memory(memory), None)
    tokens = vision.patches + 2 * formulas.text_tokens(length, vision.patches)
    flops = formulas.forward_flops(shape, rows * tokens, 0, blocks=max(saes.layers) + 1)
    sae_flops = formulas.sae_flops(shape.d_model, saes, rows * tokens, decoded=False)
    disk = formulas.latent_bytes(rows, tokens, saes)
    seconds = TORCH_START + device.seconds(flops, sae_flops)
    return Need(disk, device.memory(memory), seconds)


def train_vision_sae(node: Node, shapes: Shapes) -> Need:
    """12 d s FLOP a patch and step, decoders of every Matryoshka width counted. Disk: the SAE in
    two forms. Held: the buffer twice. GPU: weights, gradients, AdamW's moments, and four copies of
    a batch's latents."""
    size, settings = vision_sae(node, shapes), node.order["sae"]
    if size is None:
        return UNKNOWN
    d, s, _ = size
    batch, device = settings["batch_patches"], shapes.device(settings)
    nested = settings["architecture"] == "matryoshka_batchtopk"
    decoders = sum(settings["widths"]) if nested else 1.0
    flops = 6.0 * (1 + decoders) * d * s * settings["steps"] * batch
    memory = device.memory(formulas.vision_sae_memory(d, s, batch))
    held = 8.0 * settings["buffer_patches"] * d
    seconds = TORCH_START + device.seconds(0, flops)
    return Need(2 * formulas.sae_bytes(d, s), memory, seconds, held)


def check_vision_sae(node: Node, shapes: Shapes) -> Need:
    """Held-out patches encoded and decoded."""
    size = vision_sae(node, shapes)
    if size is None:
        return UNKNOWN
    flops = 4.0 * size.d * size.s * node.settings["check"]["patches"]
    return encoding_need(node, shapes, SMALL, flops)


def label_vision_latents(node: Node, shapes: Shapes) -> Need:
    """Every patch of the split encoded once. Disk: a row a latent and top image, in two tables."""
    size, settings = vision_sae(node, shapes), node.settings["labels"]
    images = shapes.rows(one(node, "records"), settings["split"])
    if size is None or images is None:
        return UNKNOWN
    d, s, patches = size
    disk = SMALL + 2 * _PER_TOP_IMAGE * s * settings["top_k"]
    return encoding_need(node, shapes, disk, 2.0 * d * s * patches * images)


def train_diffusion(node: Node, shapes: Shapes) -> Need:
    """Forward and backward of the autoencoder, then of the denoiser. Disk: four bytes a parameter
    of the denoiser, and a quarter more for the other parts."""
    recipe = node.settings["recipe"]
    autoencoder = recipe["autoencoder_steps"] * recipe["autoencoder_batch"]
    flops = 3 * formulas.autoencoder_flops(recipe) * autoencoder
    flops += 3 * formulas.denoiser_flops(recipe) * recipe["steps"] * recipe["batch_size"]
    seconds = TORCH_START + shapes.cpu.seconds(flops)
    return Need(5 * formulas.denoiser_parameters(recipe), 0.0, seconds)


def prompt_features(node: Node, shapes: Shapes) -> Need:
    """One pass over every prompt. Disk: the stream of each."""
    shape, prompts = shapes.vision(node), shapes.images(node)
    if shape is None or prompts is None:
        return UNKNOWN
    disk = SMALL + formulas.feature_bytes(prompts.images, shape)
    device = shapes.device(node.order["pipeline"])
    flops = 2 * shape.parameters * shape.patches * prompts.images
    return Need(disk, device.memory(None), TORCH_START + device.seconds(flops))


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
