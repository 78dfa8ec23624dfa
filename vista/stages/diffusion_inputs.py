"""What the stages around a text-to-image pipeline share: the pipeline, the SAE on its text encoder,
the probes that say what an image shows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vista.config.encoders import EncoderSettings
from vista.config.pipeline import CheckpointPipeline, PipelineSettings
from vista.data.geometry import prepare_image
from vista.data.records import read_records
from vista.diffusion.attributes import drawn_attributes, value_in
from vista.engine.artifacts import Job
from vista.errors import UserError
from vista.stages.loading import load_vision_encoder
from vista.store.features import FeatureReader

if TYPE_CHECKING:
    from vista.diffusion.pipeline import Sample, TextToImage
    from vista.diffusion.probes import AttributeProbes, Said
    from vista.sae.neutral import SparseAutoencoder

Pixels = NDArray[np.uint8]
# Images that are kept for pictures have no longer side, pixels.
THUMBNAIL = 128
# Images whose patch features are in memory at a time.
READ = 256


def open_pipeline(job: Job, settings: PipelineSettings, layer: int) -> TextToImage:
    """Load the pipeline: the job's input `pipeline`, else the folder that the settings name.

    Raises UserError where the folder does not exist or holds no pipeline with a text encoder.
    """
    from vista.diffusion.pipeline import load_pipeline

    if trained := job.optional("pipeline"):
        folder = trained.folder("model")
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
    """The prompts of the input `prompts`, and what its SAE says of them.

    text: of every prompt; rows: by split, their places; score_ns: the largest activation of each
    latent over a prompt's tokens.
    """

    text: list[str]
    rows: dict[str, NDArray[np.int64]]
    score_ns: NDArray[np.float32]
    sae: SparseAutoencoder

    def of(self, split: str) -> list[str]:
        """The texts of a split."""
        return [self.text[row] for row in self.rows[split].tolist()]


def read_prompts(job: Job) -> Prompts:
    """Read the job's inputs `prompts` and `sae`. Raises UserError where they do not fit."""
    from vista.stages.image_level import image_latents
    from vista.stages.vision_inputs import load_vision_sae

    records = read_records(job.input("prompts").file("records.parquet"))
    features = FeatureReader(job.input("prompts").store("features.zarr"))
    sae = load_vision_sae(job.input("sae"), features)
    every = np.arange(len(records))
    return Prompts(
        text=[record.captions[0] for record in records],
        rows={split: records.rows_of(split) for split in ("train", "validation", "test")},
        score_ns=image_latents(sae, features, every),
        sae=sae,
    )


class Judge:
    """Says which value of each attribute an image shows: probes on an encoder that is not the
    pipeline's, fitted on real images whose captions tell the values.

    Attributes:
        attributes: the values of each attribute that captions name, by name.
        accuracy: by attribute, whether the probe is right on each test image whose caption has a
            value, and the share that the most frequent value of fitting has there.
    """

    def __init__(self, job: Job) -> None:
        """Read the inputs `records` and `features`, and the encoder of the features.

        Raises UserError where captions of train name fewer than two values of an attribute, or
        those of test none.
        """
        from vista.diffusion.probes import AttributeProbes, pooled

        table = read_records(job.input("records").file("records.parquet"))
        features = FeatureReader(job.input("features").store("features.zarr"))
        image_n = table.feature_rows()[1]
        caption_n = [record.captions[0] if record.captions else "" for record in table]
        given = job.settings["attributes"] or drawn_attributes(table.categories())
        probe = job.settings["probe"]

        def of(split: str) -> tuple[NDArray[np.float32], dict[str, list[str | None]]]:
            rows = table.rows_of(split)
            if not len(rows):
                raise UserError(f"probing.diffusion.data has no image of split {split!r}")
            texts = [caption_n[row] for row in rows.tolist()]
            values = {
                name: [value_in(text, words) for text in texts] for name, words in given.items()
            }
            images = image_n[rows]
            parts = [
                pooled(features.read(images[start : start + READ]), features.grid)
                for start in range(0, len(images), READ)
            ]
            return np.concatenate(parts), values

        fitted_nd, known = of("train")
        self._probes: AttributeProbes = AttributeProbes(
            fitted_nd, known, probe["regularisation"], probe["iterations"]
        )
        self.attributes = {
            name: tuple(sorted({value for value in found if value is not None}))
            for name, found in known.items()
        }
        held_nd, truth = of("test")
        for name, found in truth.items():
            if set(found) == {None}:
                raise UserError(
                    f"probing.diffusion.attributes.{name}: no caption of split 'test' names one of "
                    "its values; correct the words, or leave the attribute out"
                )
        said = self._probes.say(held_nd)
        self.accuracy = {
            name: agreement(said[name], found, most_frequent(known[name]))
            for name, found in truth.items()
        }
        self._encoder = load_vision_encoder(job)
        self._settings = EncoderSettings.model_validate(job.settings["encoder"])

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
        """The samples' images, at most THUMBNAIL px a side, and what they show."""
        small: list[Pixels] = []
        said: list[Said] = []
        for images_bhwc in pipeline.images(samples):
            said.append(self.say(images_bhwc))
            for image in map(Image.fromarray, images_bhwc):
                image.thumbnail((THUMBNAIL, THUMBNAIL))
                small.append(np.asarray(image))
        return small, {name: np.concatenate([part[name] for part in said]) for name in said[0]}


def agreement(
    said_n: NDArray[np.str_], truth: Sequence[str | None], guess: str
) -> tuple[NDArray[np.bool_], float]:
    """Where truth is known, whether what is said is it; and how often `guess` is."""
    known = [n for n, value in enumerate(truth) if value is not None]
    truth_n = np.array([truth[n] for n in known], dtype=np.str_)
    return said_n[known] == truth_n, float(np.mean(truth_n == guess))


def most_frequent(values: Iterable[str | None]) -> str:
    """The most frequent value; of equal ones the first by name."""
    names, counts = np.unique([value for value in values if value is not None], return_counts=True)
    return str(names[counts.argmax()])


def mean_norm(pipeline: TextToImage, prompts: Sequence[str]) -> float:
    """The mean norm of the stream at the words of some prompts."""
    return float(pipeline.stream(prompts)[pipeline.words(prompts)].norm(dim=-1).mean())
