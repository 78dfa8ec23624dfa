"""What the formulas of several stages share.

Symbols: d channels, s latents, N images.
"""

from __future__ import annotations

from typing import NamedTuple

from vista.config.vision_sae import TrainVisionSaeSettings
from vista.engine.forecast import formulas
from vista.engine.forecast.model_shapes import first_size, read_config
from vista.engine.forecast.need import ROW, SMALL, TORCH_START, Need
from vista.engine.forecast.shapes import Images, Shapes, all_known, many, one
from vista.engine.node import Node

PART = 1024  # images whose latents are held where images come in parts


class VisionSae(NamedTuple):
    """Channels and latents of a vision SAE, and patches of an image that it reads."""

    d: int
    s: int
    patches: int


class ImageLevel(NamedTuple):
    """A vision SAE, the images that a job fits on, and those that it judges."""

    sae: VisionSae
    fitted: int
    judged: int


def text_tokens(node: Node, shapes: Shapes, length: int, visual: int, first: bool = False) -> int:
    """Text tokens of a mean sample of at most `length` tokens, `visual` of them visual ones: of all
    turns, or of the `first` alone; the assumed ones where the data do not tell."""
    talk = shapes.conversation(node)
    if talk is None:
        return formulas.text_tokens(length, visual)
    llm = node.order["llm"]
    tokens = talk.first_tokens(llm) if first else talk.tokens(llm)
    return max(1, min(round(tokens), length - visual - 1))


def decoding_steps(node: Node, shapes: Shapes, most: int) -> int:
    """Steps until the last answer of a batch has ended, of at most `most`: twice as many as the
    mean answer of the data has tokens."""
    talk = shapes.conversation(node)
    return most if talk is None else min(most, round(2 * talk.answer_tokens(node.order["llm"])))


def table_need(images: Images | None) -> Need:
    """Disk: a row of a table for each image."""
    return Need(disk=None if images is None else SMALL + ROW * images.total)


def text_sae_bytes(imported: Node | None, item: int | None, shapes: Shapes) -> float | None:
    """Disk of a text SAE of which a number has `item` bytes, by the node that imports it."""
    if imported is None or item is None:
        return None
    d_model, d_sae = shapes.d_model(imported), shapes.d_sae(imported)
    return formulas.sae_bytes(d_model, d_sae, item) if d_model and d_sae else None


def on_text(node: Node, shapes: Shapes, key: str, disk: float | None, decoded: bool) -> Need:
    """One pass over the tokens of the settings at `key`, those that labels are scored on included,
    up to the SAE's layer, in batches of documents, unless their stream is cached; and the SAE on
    them."""
    shape, saes, settings = shapes.llm(node), shapes.saes(node, "sae"), node.order[key]
    if shape is None or saes is None:
        return Need(disk, None, None)
    device, text = shapes.llm_device(node), settings["text"]
    tokens = settings["tokens"] + settings.get("score_tokens", 0)
    flops = formulas.forward_flops(shape, tokens, 0, blocks=saes.layers[0] + 1)
    if one(node, "cache") is not None:
        flops = 0.0
    sae_flops = formulas.sae_flops(shape.d_model, saes, tokens, decoded)
    batch, length = text["batch_documents"], text["max_length"]
    memory = formulas.reading_memory(shape, device, saes, batch, length, batch * length)
    seconds = TORCH_START + device.seconds(flops, sae_flops)
    return Need(disk, device.memory(memory), seconds)


def vision_sae(node: Node, shapes: Shapes) -> VisionSae | None:
    """The vision SAE that a node trains or reads; None of an imported one that is not there."""
    shape, sae = shapes.features(node), one(node, "sae") or node
    if shape is None:
        return None
    if sae.stage == "import_vision_sae":
        latents = imported_latents(sae, shapes)
        return VisionSae(shape.d_vision, latents, shape.patches) if latents else None
    settings = TrainVisionSaeSettings.model_validate(sae.order["sae"])
    return VisionSae(shape.d_vision, settings.latents(shape.d_vision), shape.patches)


def imported_latents(sae: Node, shapes: Shapes) -> int | None:
    """Latents of an `import_vision_sae`, if it is there."""
    if not shapes.done(sae):
        return None
    return first_size(read_config(shapes.results / sae.path / "sae.json"), "d_sae")


def image_level(node: Node, shapes: Shapes) -> ImageLevel | None:
    """What a node works on that fits on one split and judges another and further data sets."""
    size, settings = vision_sae(node, shapes), node.settings
    fitted = shapes.rows(one(node, "records"), settings["fit_split"])
    sets = (one(node, "records"), *many(node, "set_records"))
    judged = all_known(shapes.rows(records, settings["split"]) for records in sets)
    if size is None or fitted is None or judged is None:
        return None
    return ImageLevel(size, min(fitted, settings["fit_images"] or fitted), sum(judged))


def encoding_need(
    node: Node,
    shapes: Shapes,
    disk: float,
    encoding: float,
    flops: float = 0.0,
    held: float = 0.0,
) -> Need:
    """What a job takes that encodes patches (`encoding` FLOP) where the SAE's settings say, and
    does the rest (`flops`) on a CPU."""
    device = shapes.device(node.order.get("sae", {"device": "cpu"}))
    size = vision_sae(node, shapes)
    memory = formulas.dictionaries_memory(size.d, size.s) if size else 0.0
    seconds = TORCH_START + device.seconds(0, encoding) + shapes.cpu.seconds(flops)
    return Need(disk, device.memory(memory), seconds, held)


def classes(node: Node) -> int:
    """Classes of the images: those of the run's own scenes or of COCO, else ImageNet's."""
    records = one(node, "records")
    world = one(records, "world") if records else None
    if records is not None and records.settings.get("kind") in ("coco", "refcoco"):
        return 80
    if world is None:
        return 1000
    nouns = world.settings["nouns"]
    if world.stage == "compose_scenes":
        return len(nouns or range(100))
    first, end = nouns or (0, 64)
    return int(end - first)


def probe_flops(node: Node, fitted: int, width: int) -> float:
    """L-BFGS: 4 FLOP an image, number, class and iteration."""
    return 4.0 * fitted * width * classes(node) * int(node.settings["iterations"])


def generation_need(node: Node, shapes: Shapes, images: int) -> Need:
    """Time of generating images: guidance runs the denoiser twice a step. Of a checkpoint its size
    is not known."""
    source, settings = one(node, "pipeline"), node.order["pipeline"]
    memory = shapes.device(settings).memory(None)
    if source is None or memory is None:
        return Need(10 * SMALL, memory, None)
    passes = images * settings["steps"] * (2 if settings["guidance"] > 1 else 1)
    flops = passes * formulas.denoiser_flops(source.settings["recipe"])
    return Need(10 * SMALL, memory, TORCH_START + shapes.cpu.seconds(flops))
