"""What the stages around a text-to-image pipeline share: the pipeline, the SAE on its text encoder,
and the probes that classify images."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vista.config.base import Settings
from vista.config.encoders import EncoderSettings
from vista.config.pipeline import CheckpointPipeline, PipelineSettings
from vista.data.geometry import prepare_image
from vista.data.records import read_records
from vista.diffusion.attributes import drawn_attributes, value_in
from vista.engine.artifacts import Artifact
from vista.errors import UserError
from vista.inputs.models import load_vision_encoder
from vista.store.features import FeatureReader

if TYPE_CHECKING:
    from vista.diffusion.pipeline import Sample, TextToImage
    from vista.diffusion.probes import AttributeProbes, Said
    from vista.sae.neutral import SparseAutoencoder

Pixels = NDArray[np.uint8]
# Longer side of the images that are kept for pictures, pixels.
THUMBNAIL = 128
# Images whose patch features are in memory at a time.
READ = 256


class ProbeFit(Settings):
    """How the attribute probes are fitted."""

    regularisation: float
    iterations: int


class PipelineOrder(Settings):
    """What the experiments on a pipeline have in common.

    Attributes:
        layer: Block of the text encoder that is read and steered.
        encoder: The vision encoder that the probes read.
        attributes: The words of each attribute; None: those of the drawn world.
    """

    pipeline: PipelineSettings
    layer: int
    encoder: EncoderSettings
    attributes: dict[str, tuple[str, ...]] | None
    probe: ProbeFit


@dataclass(frozen=True, kw_only=True)
class PipelineInputs:
    """Prompts, the SAE with its labels, the data that probes learn from, and the models unless
    their settings name a folder.

    `check` is not read: the stage waits until it has passed.
    """

    prompts: Artifact
    sae: Artifact
    labels: Artifact
    check: Artifact | None = None
    features: Artifact
    records: Artifact
    pipeline: Artifact | None = None
    encoder: Artifact | None = None


def open_pipeline(model: Artifact | None, settings: PipelineSettings, layer: int) -> TextToImage:
    """Load the pipeline from the artifact `model`, or the folder that the settings name.

    Raises UserError where the folder does not exist or holds no pipeline with a text encoder.
    """
    from vista.diffusion.pipeline import load_pipeline

    if model is not None:
        folder = model.folder("model")
    else:
        assert isinstance(settings.source, CheckpointPipeline)
        folder = Path(settings.source.path)
        if not folder.is_dir():
            raise UserError(
                f"{folder} is not a folder; correct probing.diffusion.pipeline.source.path"
            )
    return load_pipeline(folder, settings, layer)


@dataclass(frozen=True)
class Prompts:
    """Prompts, and the activations of the SAE's latents on them.

    Attributes:
        text: The text of every prompt.
        rows: By split, the indices of its prompts.
        score_ns: The largest activation of each latent over a prompt's tokens.
    """

    text: list[str]
    rows: dict[str, NDArray[np.int64]]
    score_ns: NDArray[np.float32]
    sae: SparseAutoencoder

    def of(self, split: str) -> list[str]:
        """The texts of a split."""
        return [self.text[row] for row in self.rows[split].tolist()]


def read_prompts(prompts: Artifact, sae_artifact: Artifact) -> Prompts:
    """Read prompts, and an SAE on their features. Raises UserError where they do not fit."""
    from vista.inputs.image_vectors import image_latents
    from vista.inputs.vision import load_vision_sae

    records = read_records(prompts.file("records.parquet"))
    features = FeatureReader(prompts.store("features.zarr"))
    sae = load_vision_sae(sae_artifact, features)
    every = np.arange(len(records))
    return Prompts(
        text=[record.captions[0] for record in records],
        rows={split: records.rows_of(split) for split in ("train", "validation", "test")},
        score_ns=image_latents(sae, features, every),
        sae=sae,
    )


class Judge:
    """Classifies images by the value of each attribute that they show.

    Its probes read an encoder that is not the pipeline's and are fitted on real images, whose
    captions name the values.

    Attributes:
        attributes: the values of each attribute that captions name, by name.
        accuracy: by attribute, whether the probe is right on each test image whose caption names a
            value, and the share of these images that show the value most frequent in fitting.
    """

    def __init__(self, order: PipelineOrder, inputs: PipelineInputs) -> None:
        """Read the records and features, and the encoder of the features.

        Raises UserError where captions of train name fewer than two values of an attribute, or
        those of test none.
        """
        from vista.diffusion.probes import AttributeProbes, pooled

        table = read_records(inputs.records.file("records.parquet"))
        features = FeatureReader(inputs.features.store("features.zarr"))
        image_n = table.feature_rows()[1]
        caption_n = [record.captions[0] if record.captions else "" for record in table]
        attributes = order.attributes or drawn_attributes(table.categories())

        def of(split: str) -> tuple[NDArray[np.float32], dict[str, list[str | None]]]:
            rows = table.rows_of(split)
            if not len(rows):
                raise UserError(f"probing.diffusion.data has no image of split {split!r}")
            texts = [caption_n[row] for row in rows.tolist()]
            values = {
                name: [value_in(text, words) for text in texts]
                for name, words in attributes.items()
            }
            images = image_n[rows]
            parts = [
                pooled(features.read(images[start : start + READ]), features.grid)
                for start in range(0, len(images), READ)
            ]
            return np.concatenate(parts), values

        fitted_nd, known = of("train")
        self._probes: AttributeProbes = AttributeProbes(
            fitted_nd, known, order.probe.regularisation, order.probe.iterations
        )
        self.attributes = {
            name: tuple(sorted({value for value in values if value is not None}))
            for name, values in known.items()
        }
        held_nd, truth = of("test")
        for name, values in truth.items():
            if set(values) == {None}:
                raise UserError(
                    f"probing.diffusion.attributes.{name}: no caption of split 'test' names one of "
                    "its values; correct the words, or leave the attribute out"
                )
        predicted = self._probes.say(held_nd)
        self.accuracy = {
            name: agreement(predicted[name], values, most_frequent(known[name]))
            for name, values in truth.items()
        }
        self._encoder = load_vision_encoder(order.encoder, inputs.encoder)
        self._settings = order.encoder

    def say(self, images_bhwc: Pixels) -> Said:
        """The value of each attribute that each image shows, by name [b]."""
        from vista.diffusion.probes import pooled

        encoder = self._encoder
        squares = [
            prepare_image(
                Image.fromarray(image),
                encoder.size,
                self._settings.fit,
                encoder.mean_colour,
                encoder.resample,
            )
            for image in images_bhwc
        ]
        features = encoder.encode(np.stack(squares)).cpu().numpy()
        return self._probes.say(pooled(features, encoder.grid))

    def look(
        self, pipeline: TextToImage, samples: Sequence[Sample]
    ) -> tuple[list[Pixels], dict[str, NDArray[np.str_]]]:
        """Return the samples' images, at most THUMBNAIL px a side, and what they show."""
        small: list[Pixels] = []
        batches: list[Said] = []
        for images_bhwc in pipeline.images(samples):
            batches.append(self.say(images_bhwc))
            for image in map(Image.fromarray, images_bhwc):
                image.thumbnail((THUMBNAIL, THUMBNAIL))
                small.append(np.asarray(image))
        return small, {
            name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]
        }


def agreement(
    value_n: NDArray[np.str_], truth: Sequence[str | None], guess: str
) -> tuple[NDArray[np.bool_], float]:
    """Of the items with a known value: whether theirs is right, and the share that `guess` has."""
    known = [n for n, value in enumerate(truth) if value is not None]
    truth_n = np.array([truth[n] for n in known], dtype=np.str_)
    return value_n[known] == truth_n, float(np.mean(truth_n == guess))


def most_frequent(values: Iterable[str | None]) -> str:
    """The most frequent value; of equal ones the first by name."""
    names, counts = np.unique([value for value in values if value is not None], return_counts=True)
    return str(names[counts.argmax()])


def mean_norm(pipeline: TextToImage, prompts: Sequence[str]) -> float:
    """The mean norm of the stream at the words of some prompts."""
    return float(pipeline.stream(prompts)[pipeline.words(prompts)].norm(dim=-1).mean())
