"""What one job of each stage will need."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from vista.config.projector import TrainingStage
from vista.config.published import DOWNLOADS, SAE_BYTES, STORED_FLOAT32, VisionShape
from vista.engine.forecast import formulas
from vista.engine.forecast.formulas import START, TEXT_TOKENS, Device, Dictionaries
from vista.engine.forecast.need import ROW, SMALL, UNKNOWN, Need
from vista.engine.forecast.probing_jobs import ProbingJobs
from vista.engine.forecast.shapes import Shapes, many, one
from vista.engine.node import Node

_REPORT = 1e7


def job_count(node: Node) -> int:
    """Jobs that make an artifact: where parts are jobs of their own, these and one for the rest."""
    return node.jobs + (node.jobs > 1)


class Jobs:
    """Needs of the nodes of one plan; `threads` is the CPU threads of a job."""

    def __init__(self, shapes: Shapes, threads: int) -> None:
        self.shapes = shapes
        self.threads = threads
        self._by_stage: dict[str, Callable[[Node], Need]] = {
            "fetch_model": self._fetch_model,
            "fetch_sae": self._fetch_sae,
            "fetch_labels": lambda _: Need(disk=None),
            "fetch_data": self._fetch_data,
            "draw_world": self._draw_world,
            "records": self._records,
            "text": self._text,
            "train_encoder": self._train_encoder,
            "train_llm": self._train_llm,
            "train_sae": self._train_sae,
            "import_sae": self._import_sae,
            "check_sae": lambda node: self._on_text(node, "check", decoded=True),
            "label_latents": lambda node: self._on_text(node, "labels", decoded=False),
            "import_labels": self._import_labels,
            "features": self._features,
            "combine_features": self._combine_features,
            "train_projector": self._train_projector,
            "import_projector": self._import_projector,
            "latents": self._latents,
            "caption": self._caption,
            "logit_lens": self._logit_lens,
            "shared_latents": self._shared_latents,
            "report": lambda _: Need(disk=_REPORT),
            **ProbingJobs(shapes, threads).by_stage,
        }

    def need(self, node: Node) -> Need:
        """Return what the job of a node takes; a stage without a formula makes small tables."""
        formula = self._by_stage.get(node.stage)
        found = Need() if formula is None else formula(node)
        started = START * job_count(node)
        return replace(found, seconds=found.seconds + started) if found.seconds else found

    def _fetch_model(self, node: Node) -> Need:
        """Parameters x the bytes of each as published."""
        vision, llm = self.shapes.vision(node), self.shapes.llm(node)
        found = vision or llm
        item = 4 if node.settings["repo"] in STORED_FLOAT32 else 2
        return Need(disk=None if found is None else found.loaded * item)

    def _fetch_sae(self, node: Node) -> Need:
        """Encoder and decoder in the dtype of the release."""
        release = node.settings["release"]
        item = next((b for name, b in SAE_BYTES.items() if release.startswith(name)), None)
        importing = self.shapes.imports.get(node.id)
        size = self._sae_bytes(importing, item) if importing and item else None
        return Need(disk=size)

    def _fetch_data(self, node: Node) -> Need:
        """Sizes of published files; images hardly grow when they are unpacked."""
        urls = [each["url"] for each in node.settings["files"]]
        sizes = [next((b for e, b in DOWNLOADS.items() if url.endswith(e)), None) for url in urls]
        known = [size for size in sizes if size is not None]
        return Need(disk=sum(known) if len(known) == len(sizes) else None)

    def _draw_world(self, node: Node) -> Need:
        """PNG files: at most three bytes a pixel."""
        own = node.settings
        return Need(disk=3.0 * own["image_size"] ** 2 * sum(own["scenes"].values()))

    def _records(self, node: Node) -> Need:
        images = self.shapes.images(node)
        return Need(disk=None if images is None else SMALL + ROW * images.total)

    def _text(self, node: Node) -> Need:
        """Drawn documents or captions by their number, the user's text files by their size."""
        world, records = one(node, "world"), one(node, "records")
        if world is not None:
            return Need(disk=ROW * sum(world.settings["documents"].values()))
        if records is not None:
            return self._records(records)
        files = [Path(name) for name in node.files]
        there = bool(files) and all(file.is_file() for file in files)
        return Need(disk=sum(file.stat().st_size for file in files) if there else None)

    def _train_encoder(self, node: Node) -> Need:
        """Weights in float32; 6 FLOP a parameter and token of each step."""
        shape, own = self.shapes.vision(node), node.settings
        if shape is None:
            return UNKNOWN
        tokens = own["steps"] * own["batch_size"] * (shape.patches + shape.prefix)
        seconds = self._cpu.seconds(6 * shape.parameters * tokens)
        return Need(shape.loaded * 4, 0.0, seconds)

    def _train_llm(self, node: Node) -> Need:
        """Weights in float32; 6 FLOP a parameter and token of each step."""
        shape, own = self.shapes.llm(node), node.settings
        if shape is None:
            return UNKNOWN
        tokens = own["steps"] * own["batch_size"] * own["max_length"]
        return Need(shape.parameters * 4, 0.0, self._cpu.seconds(6 * shape.parameters * tokens))

    def _train_sae(self, node: Node) -> Need:
        """Encoder and decoder in float32; 6 FLOP a parameter and token of each step."""
        own, d_model = node.settings["sae"], self.shapes.d_model(node)
        if d_model is None:
            return UNKNOWN
        size = formulas.sae_bytes(d_model, own["d_sae"])
        device = self._device(node)
        seconds = device.seconds(0, 1.5 * size * own["steps"] * own["batch_tokens"])
        return Need(size, 0.0 if not device.gpu else None, seconds)

    def _import_sae(self, node: Node) -> Need:
        return Need(disk=self._sae_bytes(node, 4))

    def _sae_bytes(self, imported: Node, item: int) -> float | None:
        d_model, d_sae = self.shapes.d_model(imported), self.shapes.d_sae(imported)
        return formulas.sae_bytes(d_model, d_sae, item) if d_model and d_sae else None

    def _import_labels(self, node: Node) -> Need:
        d_sae = self.shapes.d_sae(node.parents()[0])
        return Need(disk=None if d_sae is None else ROW * d_sae)

    def _on_text(self, node: Node, key: str, decoded: bool) -> Need:
        """One pass over so many tokens up to the SAE's layer, in batches of documents."""
        shape, saes, own = self.shapes.llm(node), self._saes(node, "sae"), node.order[key]
        rows = None if saes is None else saes.latents
        disk = SMALL if decoded else None if rows is None else SMALL + ROW * rows
        if shape is None or saes is None:
            return Need(disk, None, None)
        device, text = self._device(node), own["text"]
        flops = formulas.forward_flops(shape, own["tokens"], 0, blocks=saes.layers[0] + 1)
        extra = formulas.sae_flops(shape.d_model, saes, own["tokens"], decoded)
        batch, length = text["batch_documents"], text["max_length"]
        memory = formulas.reading_memory(shape, device, saes, batch, length, batch * length)
        return Need(disk, memory if device.gpu else 0.0, device.seconds(flops, extra))

    def _features(self, node: Node) -> Need:
        """One pass over every different image."""
        shape, own = self.shapes.vision(node), node.order["encoder"]
        records = one(node, "records")
        images = self.shapes.images(records) if records else None
        device = Device.of(own, self.threads)
        memory = formulas.features_memory(shape, device, own["batch_size"]) if shape else None
        if shape is None or images is None:
            return Need(None, memory if device.gpu else 0.0, None)
        flops = 2 * shape.parameters * (shape.patches + shape.prefix) * images.images
        disk = formulas.feature_bytes(images.images, shape)
        return Need(disk, memory if device.gpu else 0.0, device.seconds(flops))

    def _combine_features(self, node: Node) -> Need:
        """The features of both once more."""
        shape, records = self.shapes.vision(node), one(many(node, "features")[0], "records")
        images = self.shapes.images(records) if records else None
        if shape is None or images is None:
            return Need(disk=None)
        return Need(disk=formulas.feature_bytes(images.images, shape))

    def _train_projector(self, node: Node) -> Need:
        """Forward and backward of each step. The backward pass goes through the frozen model to
        the visual tokens without gradients of its weights, so it costs as much as the forward.
        Of several processes, which share each batch and a machine's threads, one is counted."""
        shape, vision, saes = self.shapes.llm(node), self._vision(node), self._saes(node, "saes")
        stage = TrainingStage.model_validate(node.order["training"])
        device = Device.of(node.order["llm"], max(1, self.threads // stage.processes))
        if shape is None or vision is None:
            return UNKNOWN
        size = formulas.projector_parameters(_kind(node), vision.d_vision, shape.d_model)
        if saes is None:
            return Need(4 * size, None, None)
        visual, length = vision.patches, stage.max_length
        batch = -(-stage.batch_size // (stage.processes * stage.machines))
        micro = min(stage.micro_batch or batch, batch)
        memory = formulas.training_memory(shape, device, saes, micro, length, visual, size)
        rows = self._rows(node, stage.split)
        seconds = None
        if rows or stage.steps:
            samples = stage.total_steps(rows or stage.batch_size) * batch
            text = _text_tokens(length, visual)
            flops = 2 * samples * formulas.forward_flops(shape, visual + text, text)
            # The rest of the term visits active latents alone.
            extra = formulas.sae_flops(shape.d_model, saes, samples * visual, decoded=False)
            coarse = node.settings.get("sae_dtype") == "bfloat16"
            seconds = device.seconds(flops + extra) if coarse else device.seconds(flops, extra)
        return Need(4 * size, memory if device.gpu else 0.0, seconds)

    def _import_projector(self, node: Node) -> Need:
        shape, vision = self.shapes.llm(node), self._vision(node)
        if shape is None or vision is None:
            return Need(disk=None)
        size = formulas.projector_parameters("mlp", vision.d_vision, shape.d_model)
        return Need(disk=4 * size)

    def _latents(self, node: Node) -> Need:
        """A pass with the image and one without, up to the last layer with an SAE; the tokens of
        both are stored."""
        shape, vision, saes = self.shapes.llm(node), self._vision(node), self._saes(node, "saes")
        own, device = node.order["latents"], self._device(node)
        if shape is None or vision is None or saes is None:
            return UNKNOWN
        length = own["max_length"]
        memory = formulas.reading_memory(shape, device, saes, own["batch_size"], length)
        rows = self._rows(node, own["split"])
        if rows is None:
            return Need(None, memory if device.gpu else 0.0, None)
        tokens = vision.patches + 2 * _text_tokens(length, vision.patches)
        last = max(saes.layers) + 1
        flops = formulas.forward_flops(shape, rows * tokens, 0, blocks=last)
        extra = formulas.sae_flops(shape.d_model, saes, rows * tokens, decoded=False)
        disk = formulas.latent_bytes(rows, tokens, saes)
        return Need(disk, memory if device.gpu else 0.0, device.seconds(flops, extra))

    def _caption(self, node: Node) -> Need:
        """Three passes (loss, loss with shuffled images, prompt), then greedy decoding."""
        shape, vision = self.shapes.llm(node), self._vision(node)
        own, device = node.order["caption"], self._device(node)
        if shape is None or vision is None:
            return Need(SMALL, None, None)
        text, batch = _text_tokens(own["max_length"], vision.patches), own["batch_size"]
        answer = min(text, own["max_new_tokens"])
        memory = formulas.caption_memory(shape, device, batch, vision.patches + text, answer)
        rows, seconds = self._rows(node, own["split"]), None
        if rows is not None:
            passes = 3 * formulas.forward_flops(shape, rows * (vision.patches + text), rows * text)
            steps = -(-rows // batch) * own["max_new_tokens"]
            seconds = device.seconds(passes) + device.decoding_seconds(steps, shape)
        return Need(SMALL, memory if device.gpu else 0.0, seconds)

    def _logit_lens(self, node: Node) -> Need:
        """A pass over the visual tokens alone, and the head at every layer. Disk: a word and its
        probability, 8 bytes, of each token and layer."""
        shape, vision = self.shapes.llm(node), self._vision(node)
        own, device, layers = node.order["logit_lens"], self._device(node), node.settings["layers"]
        if shape is None or vision is None:
            return Need(SMALL, None, None)
        read = Dictionaries(layers, [], [])
        memory = formulas.reading_memory(shape, device, read, own["batch_size"], vision.patches)
        rows = self._rows(node, own["split"])
        if rows is None:
            return Need(None, memory if device.gpu else 0.0, None)
        tokens = rows * vision.patches
        seconds = device.seconds(formulas.forward_flops(shape, tokens, tokens * len(layers)))
        disk = SMALL + 8.0 * tokens * len(layers)
        return Need(disk, memory if device.gpu else 0.0, seconds)

    def _shared_latents(self, node: Node) -> Need:
        """Held: what is ranked of the texts' latents at one layer, about 110 bytes each."""
        latents = one(node, "latents")
        assert latents is not None
        rows = self._rows(node, latents.order["latents"]["split"])
        saes, vision = self._saes(latents, "saes"), self._vision(node)
        if rows is None or saes is None or vision is None:
            return Need(held=None)
        text = _text_tokens(latents.order["latents"]["max_length"], vision.patches)
        return Need(held=110.0 * rows * text * max(saes.active))

    @property
    def _cpu(self) -> Device:
        return Device(gpu=False, dtype="float32", threads=self.threads)

    def _device(self, node: Node) -> Device:
        return Device.of(node.order["llm"], self.threads)

    def _vision(self, node: Node) -> VisionShape | None:
        features = one(node, "features")
        return self.shapes.vision(features) if features else None

    def _rows(self, node: Node, split: str) -> int | None:
        records = one(node, "records")
        images = self.shapes.images(records) if records else None
        return None if images is None else images.rows.get(split, 0)

    def _saes(self, node: Node, role: str) -> Dictionaries | None:
        found = many(node, role)
        widths = [self.shapes.d_sae(each) for each in found]
        known = [width for width in widths if width is not None]
        if len(known) < len(widths):
            return None
        layers = [int(each.settings["layer"]) for each in found]
        return Dictionaries(layers, known, [_l0(each) for each in found])


def _text_tokens(length: int, visual: int) -> int:
    """Text tokens of a sample of at most `length` tokens."""
    return max(0, min(TEXT_TOKENS, length - visual - 1))


def _l0(imported: Node) -> float:
    """Active latents a token that an SAE's training aims at, or the usual figure."""
    trained = one(imported, "train_sae")
    return float(trained.settings["sae"]["k"]) if trained else formulas.L0


def _kind(node: Node) -> str:
    """The kind of a projector, which the first stage of its training says."""
    start = one(node, "start")
    made: Mapping[str, Any] | None = node.settings.get("projector")
    if made is not None:
        return str(made["kind"])
    return _kind(start) if start else "linear"
