"""What jobs of vision SAEs and of the probing experiments will need.

Symbols: d channels, s latents, P patches an image, N images, k numbers beside others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from vista.config.published import VisionShape
from vista.config.vision_sae import TrainVisionSaeSettings
from vista.engine.forecast import formulas
from vista.engine.forecast.formulas import Device
from vista.engine.forecast.need import ROW, SMALL, UNKNOWN, Need
from vista.engine.forecast.shapes import Shapes, many, one
from vista.engine.node import Node

_PART = 1024  # images whose latents are held where images come in parts
_LBFGS = 25  # vectors that L-BFGS keeps
_ABLATED = 4  # as vista/stages/diffusion_steering.py has it, which is not imported: numpy
_PER_TOP_IMAGE = 20.0  # bytes of a row of top.parquet, twice (the labels tell it too)


class ProbingJobs:
    """Formulas of the stages of vision SAEs, probing experiments and text-to-image pipelines.

    `threads` is the CPU threads of a job.
    """

    def __init__(self, shapes: Shapes, threads: int) -> None:
        self.shapes = shapes
        self.cpu = Device(gpu=False, dtype="float32", threads=threads)
        self.by_stage: Mapping[str, Callable[[Node], Need]] = {
            "train_vision_sae": self._train_vision_sae,
            "check_vision_sae": self._check_vision_sae,
            "label_vision_latents": self._label_vision_latents,
            "monosemanticity": self._monosemanticity,
            "ood_detection": self._ood_detection,
            "ood_generalization": self._ood_generalization,
            "ontology": self._ontology,
            "image_attributes": self._image_attributes,
            "train_diffusion": self._train_diffusion,
            "prompt_features": self._prompt_features,
            "diffusion_steering": self._diffusion_steering,
            "attribute_discovery": self._attribute_discovery,
        }

    def _train_vision_sae(self, node: Node) -> Need:
        """12 d s FLOP a patch and step, decoders of every Matryoshka width counted. Disk: the
        SAE in two forms. Held: the buffer twice. GPU: weights, gradients, AdamW's moments, and
        four copies of a batch's latents."""
        size, own = self._size(node), node.order["sae"]
        if size is None:
            return UNKNOWN
        d, s, _ = size
        patches = own["steps"] * own["batch_patches"]
        decoders = sum(own["widths"]) if own["architecture"] == "matryoshka_batchtopk" else 1.0
        flops = 6.0 * (1 + decoders) * d * s * patches
        gpu = own["device"] != "cpu"
        device = Device(gpu, "float32", self.cpu.threads)
        memory = formulas.vision_sae_memory(d, s, own["batch_patches"]) if gpu else 0.0
        held = 8.0 * own["buffer_patches"] * d
        return Need(2 * formulas.sae_bytes(d, s), memory, device.seconds(0, flops), held)

    def _check_vision_sae(self, node: Node) -> Need:
        size = self._size(node)
        if size is None:
            return UNKNOWN
        d, s, _ = size
        return self._encoded(node, SMALL, 4.0 * d * s * node.settings["check"]["patches"])

    def _label_vision_latents(self, node: Node) -> Need:
        """Every patch of the split encoded once; a row a latent and top image, in two tables."""
        size, own = self._size(node), node.settings["labels"]
        images = self._images(node, own["split"])
        if size is None or images is None:
            return UNKNOWN
        d, s, patches = size
        disk = SMALL + 2 * _PER_TOP_IMAGE * s * own["top_k"]
        return self._encoded(node, disk, 2.0 * d * s * patches * images)

    def _monosemanticity(self, node: Node) -> Need:
        """The SAE and the random dictionary encode every patch. Held: sums over images of
        activation x embedding, [s, d] in float64, five at once, and latents of a part."""
        size, images = self._size(node), self._images(node, node.settings["split"])
        other = self._vision(node, "other")
        if size is None or images is None or other is None:
            return UNKNOWN
        d, s, patches = size
        held = 40.0 * s * other.d_vision + 24.0 * _PART * s
        disk = 10 * SMALL + ROW / 16 * s
        return self._encoded(node, disk, 4.0 * d * s * patches * images, held=held)

    def _ood_detection(self, node: Node) -> Need:
        """Encoded and decoded by the SAE, encoded by the random one; neighbours in latents of both
        and in features. Held: four times the latents of what is fitted on [N, s]."""
        found = self._image_level(node)
        if found is None:
            return UNKNOWN
        (d, s, patches), fitted, judged = found
        flops = 2.0 * fitted * judged * (2 * s + d)
        # Randomised principal components pass over the matrix about ten times.
        flops += 20.0 * fitted * s * min(node.settings["components"], fitted, s)
        flops += self._probe_flops(node, fitted, d)
        held = 16.0 * s * (fitted + _PART)
        disk = SMALL + ROW / 2 * judged
        encoding = 6.0 * d * s * patches * (fitted + judged)
        return self._encoded(node, disk, encoding, flops, held)

    def _ood_generalization(self, node: Node) -> Need:
        """As `_ood_detection`, then a probe on each representation. Held: L-BFGS' past besides."""
        found = self._image_level(node)
        if found is None:
            return UNKNOWN
        (d, s, patches), fitted, judged = found
        width = 2 * s + d + 3 * sum(node.settings["latents"])
        flops = self._probe_flops(node, fitted, width)
        held = 14.0 * s * (fitted + _PART) + 8.0 * _LBFGS * self._classes(node) * s
        encoding = 6.0 * d * s * patches * (fitted + judged)
        return self._encoded(node, SMALL, encoding, flops, held)

    def _ontology(self, node: Node) -> Need:
        """Top images of the features' channels and of a random dictionary, over the labels'
        split."""
        labels, size = one(node, "labels"), self._size(node)
        assert labels is not None
        images = self._images(node, labels.settings["labels"]["split"])
        if size is None or images is None:
            return UNKNOWN
        d, s, patches = size
        encoding = 2.0 * d * (d + s) * patches * images
        return self._encoded(node, SMALL + ROW / 8 * (2 * s + d), encoding)

    def _image_attributes(self, node: Node) -> Need:
        """Three splits by the SAE, the random dictionary and the SAE's random latents. Held: the
        latents of all three [N, s], and once more permuted."""
        size, own = self._size(node), node.settings
        counts = [self._images(node, own[key]) for key in ("fit_split", "rank_split", "split")]
        known = _known(counts)
        if size is None or known is None:
            return UNKNOWN
        d, s, patches = size
        images = sum(min(count, own["images"] or count) for count in known)
        return self._encoded(node, SMALL, 4.0 * d * s * patches * images, held=8.0 * s * images)

    def _encoded(
        self, node: Node, disk: float, encoding: float, flops: float = 0.0, held: float = 0.0
    ) -> Need:
        """What a stage takes that encodes patches where the SAE's settings say, and does the rest
        on a CPU."""
        gpu = node.order.get("sae", {}).get("device", "cpu") != "cpu"
        size = self._size(node)
        memory = formulas.dictionaries_memory(*size[:2]) if gpu and size else 0.0
        device = Device(gpu, "float32", self.cpu.threads)
        return Need(disk, memory, device.seconds(0, encoding) + self.cpu.seconds(flops), held)

    def _train_diffusion(self, node: Node) -> Need:
        """Forward and backward of the autoencoder, then of the denoiser. Disk: four bytes a
        parameter of the denoiser, and a quarter more for the other parts."""
        own = node.settings["recipe"]
        autoencoder = own["autoencoder_steps"] * own["autoencoder_batch"]
        flops = 3 * formulas.autoencoder_flops(own) * autoencoder
        flops += 3 * formulas.denoiser_flops(own) * own["steps"] * own["batch_size"]
        return Need(5 * formulas.denoiser_parameters(own), 0.0, self.cpu.seconds(flops))

    def _prompt_features(self, node: Node) -> Need:
        shape, prompts = self.shapes.vision(node), self.shapes.images(node)
        if shape is None or prompts is None:
            return UNKNOWN
        disk = formulas.feature_bytes(prompts.images, shape)
        return Need(SMALL + disk, 0.0 if _on_cpu(node) else None)

    def _diffusion_steering(self, node: Node) -> Need:
        """Images of each target: three methods at every coefficient and the edited prompt on those
        of development, four on those of test, and what is ablated; the unedited ones besides."""
        own = node.settings["steering"]
        development, test = own["development"], own["test"]
        a_target = development * (3 * len(own["coefficients"]) + 1) + 4 * (test + _ABLATED)
        targets = len(own["attributes"]) * own["targets"]
        return self._generated(node, targets * a_target + development + test)

    def _attribute_discovery(self, node: Node) -> Need:
        """By a proposal, a random direction and a random latent in its place, and unedited."""
        own = node.settings["discovery"]
        return self._generated(node, (3 * own["proposals"] + 1) * own["prompts"])

    def _generated(self, node: Node, images: int) -> Need:
        """Guidance runs the denoiser twice a step. Of a checkpoint its size is not known."""
        source, own = one(node, "pipeline"), node.order["pipeline"]
        if source is None:
            return Need(10 * SMALL, 0.0 if _on_cpu(node) else None, None)
        passes = images * own["steps"] * (2 if own["guidance"] > 1 else 1)
        seconds = None
        if _on_cpu(node):
            seconds = self.cpu.seconds(passes * formulas.denoiser_flops(source.settings["recipe"]))
        return Need(10 * SMALL, 0.0 if _on_cpu(node) else None, seconds)

    def _image_level(self, node: Node) -> tuple[tuple[int, int, int], int, int] | None:
        """Channels, latents and patches; images that are fitted on; images that are judged."""
        size, own = self._size(node), node.settings
        fitted = self._images(node, own["fit_split"])
        sets = [self._rows(each, own["split"]) for each in many(node, "set_records")]
        judged = _known([self._images(node, own["split"]), *sets])
        if size is None or fitted is None or judged is None:
            return None
        return size, min(fitted, own["fit_images"] or fitted), sum(judged)

    def _size(self, node: Node) -> tuple[int, int, int] | None:
        """Channels and latents of a vision SAE, and patches an image; of what reads one too."""
        shape, sae = self._vision(node, "features"), one(node, "sae") or node
        if shape is None:
            return None
        settings = TrainVisionSaeSettings.model_validate(sae.order["sae"])
        return shape.d_vision, settings.latents(shape.d_vision), shape.patches

    def _vision(self, node: Node, role: str) -> VisionShape | None:
        features = one(node, role)
        return self.shapes.vision(features) if features else None

    def _images(self, node: Node, split: str) -> int | None:
        records = one(node, "records")
        return self._rows(records, split) if records else None

    def _rows(self, records: Node, split: str) -> int | None:
        found = self.shapes.images(records)
        return None if found is None else found.rows.get(split, 0)

    def _probe_flops(self, node: Node, fitted: int, width: int) -> float:
        """L-BFGS: 4 FLOP an image, number, class and iteration."""
        return 4.0 * fitted * width * self._classes(node) * int(node.settings["iterations"])

    def _classes(self, node: Node) -> int:
        """Classes of the images: those of a drawn world, else as many as ImageNet has."""
        records = one(node, "records")
        world = one(records, "world") if records else None
        first, end = (world.settings["nouns"] or (0, 64)) if world else (0, 1000)
        return int(end - first)


def _on_cpu(node: Node) -> bool:
    return bool(node.order["pipeline"]["device"] == "cpu")


def _known(counts: Iterable[int | None]) -> list[int] | None:
    """All counts, or None where one of them is not known."""
    found = list(counts)
    known = [each for each in found if each is not None]
    return known if len(known) == len(found) else None
