"""Stage: measure how similar the images of each latent are in another encoder's space."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vista.data.records import read_records
from vista.engine.artifacts import Artifact
from vista.engine.job import StageJob, stage
from vista.errors import UserError
from vista.inputs.control_dictionaries import random_sae
from vista.inputs.image_files import image_files
from vista.inputs.image_vectors import image_latents, image_means
from vista.inputs.vision import SaeDevice, load_vision_sae, sae_block, split_images
from vista.metrics.monosemanticity import MonosemanticitySettings
from vista.metrics.monosemanticity.measure import monosemanticity
from vista.metrics.monosemanticity.sheet import draw_top_images
from vista.metrics.results import read_result, write_result
from vista.store.features import FeatureReader

# Images whose activations are in memory at once.
_IMAGES = 1024


class MonosemanticityOrder(MonosemanticitySettings):
    """The settings, and the SAE's device."""

    sae: SaeDevice = SaeDevice()


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """A vision SAE with its check and labels, the features that it reads with their records, the
    images, and `other`: the features of the encoder in whose space similarity is measured."""

    sae: Artifact
    check: Artifact
    labels: Artifact
    features: Artifact
    other: Artifact
    records: Artifact
    world: Artifact | None = None
    fetched: Artifact | None = None


@stage(MonosemanticityOrder, Inputs)
def run(job: StageJob[MonosemanticityOrder, Inputs]) -> None:
    """Read vision SAE with its labels, features, records, images and another encoder's features;
    write result, scores and a sheet of top images (top_images.png, .svg).

    Dictionaries: `sae`; `neurons`, the features' channels; `random`, as many random directions as
    the SAE has latents, of which as many fire on a patch as of the SAE's latents (its check's L0).

    An image's embedding is its mean over patches, less the mean over all images, which the source
    does not subtract: a component that all images share moves every similarity towards 1.

    Raises UserError where the split has fewer than two images, an image has no features of the
    other encoder, or an image's embedding is zero.
    """
    import torch

    torch.set_num_threads(job.threads)
    settings, inputs = job.settings, job.inputs
    records = read_records(inputs.records.file("records.parquet"))
    features, other = (
        FeatureReader(artifact.store("features.zarr"))
        for artifact in (inputs.features, inputs.other)
    )
    sae = load_vision_sae(inputs.sae, features, settings.sae.device)
    images, _ = split_images(records, features, settings.split, "probing.monosemanticity.split")
    embedding_nd = image_means(other, _same_images(features, other, images))
    embedding_nd -= embedding_nd.mean(axis=0)
    random = random_sae(sae, round(read_result(inputs.check)["l0"]), settings.seed)

    def batches() -> Iterator[tuple[dict[str, NDArray[Any]], NDArray[Any]]]:
        for start in range(0, len(images), _IMAGES):
            part = slice(start, start + _IMAGES)
            yield (
                {
                    "sae": image_latents(sae, features, images[part]),
                    "neurons": image_means(features, images[part]),
                    "random": image_latents(random, features, images[part]),
                },
                embedding_nd[part],
            )

    bootstrap = settings.bootstrap
    try:
        result, scores, fired = monosemanticity(
            batches(),
            bootstrap.seed,
            bootstrap.resamples,
            bootstrap.level,
            sae_block(sae, inputs.features),
        )
    except ValueError as error:
        raise UserError(f"probing.monosemanticity: {error}; choose other images") from error
    write_result(
        job.work,
        result,
        {
            "dictionary": np.repeat(list(scores), [len(score_s) for score_s in scores.values()]),
            "latent": np.concatenate([np.arange(len(score_s)) for score_s in scores.values()]),
            "score": np.concatenate(list(scores.values())),
            "images": np.concatenate(list(fired.values())),
        },
    )
    if settings.sheet_latents:
        draw_top_images(
            job.work,
            image_files(inputs.records, inputs.world, inputs.fetched),
            inputs.features,
            inputs.labels,
            records,
            scores["sae"],
            fired["sae"],
            settings.sheet_latents,
            settings.sheet_images,
        )


def _same_images(
    features: FeatureReader, other: FeatureReader, images: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return the rows of `other` that hold the images of the rows `images` of `features`."""
    row_of = {image_id: row for row, image_id in enumerate(other.image_ids)}
    image_ids = [features.image_ids[image] for image in images]
    if (missing := next((name for name in image_ids if name not in row_of), None)) is not None:
        raise UserError(
            f"the features of the encoder that judges lack image {missing!r}; run the workflow "
            "again so that both encoders' features are of the same images"
        )
    return np.array([row_of[name] for name in image_ids], dtype=np.int64)
