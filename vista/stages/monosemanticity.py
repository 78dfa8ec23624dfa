"""Stage: do a latent's images resemble each other to another encoder?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vista.config.probing import MonosemanticitySettings
from vista.data.records import read_records
from vista.engine.artifacts import Job
from vista.errors import UserError
from vista.metrics.monosemanticity import monosemanticity
from vista.stages.results import read_result, write_result
from vista.stages.top_images import draw_top_images
from vista.stages.vision_inputs import split_images
from vista.store.features import FeatureReader

_IMAGES = 1024  # whose activations are held at once


def run(job: Job) -> None:
    """Read vision SAE with its labels, features, records, images and another encoder's features;
    write result, scores and a sheet of top images (top_images.png, .svg).

    Dictionaries: `sae`; `neurons`, the features' channels; `random`, directions as many as the SAE
    has latents, of which as many fire on a patch as of the SAE's (its check's L0).

    An image's embedding is its mean over patches, less the mean over all images (which the source
    does not take off): what all images share says nothing of how alike two of them are, and would
    press every similarity towards 1.

    Raises UserError where the split has fewer than two images, an image has no features of the
    other encoder, or an image's embedding is zero.
    """
    import torch

    from vista.stages.image_level import image_latents, image_means, random_sae
    from vista.stages.vision_inputs import load_vision_sae, probing_settings, sae_block

    torch.set_num_threads(job.threads)
    settings, device = probing_settings(job, MonosemanticitySettings)
    records = read_records(job.input("records").file("records.parquet"))
    features, other = (
        FeatureReader(job.input(role).store("features.zarr")) for role in ("features", "other")
    )
    sae = load_vision_sae(job.input("sae"), features, device)
    images, _ = split_images(records, features, settings.split, "probing.monosemanticity.split")
    embedding_nd = image_means(other, _same_images(features, other, images))
    embedding_nd -= embedding_nd.mean(axis=0)
    random = random_sae(sae, round(read_result(job.input("check"))["l0"]), settings.seed)

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

    draws = settings.bootstrap
    try:
        result, scores, fired = monosemanticity(
            batches(),
            draws.seed,
            draws.resamples,
            draws.level,
            sae_block(sae, job.input("features")),
        )
    except ValueError as error:
        raise UserError(f"probing.monosemanticity: {error}; choose other images") from error
    write_result(
        job,
        result,
        {
            "dictionary": np.repeat(list(scores), [len(each) for each in scores.values()]),
            "latent": np.concatenate([np.arange(len(each)) for each in scores.values()]),
            "score": np.concatenate(list(scores.values())),
            "images": np.concatenate(list(fired.values())),
        },
    )
    if settings.sheet_latents:
        size = (settings.sheet_latents, settings.sheet_images)
        draw_top_images(job, records, scores["sae"], fired["sae"], *size)


def _same_images(
    features: FeatureReader, other: FeatureReader, images: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Where the other store has the images that lie at `images` in the first."""
    place = {image_id: row for row, image_id in enumerate(other.image_ids)}
    wanted = [features.image_ids[image] for image in images]
    if (missing := next((each for each in wanted if each not in place), None)) is not None:
        raise UserError(
            f"the features of the encoder that judges lack image {missing!r}; run the workflow "
            "again so that both encoders' features are of the same images"
        )
    return np.array([place[each] for each in wanted], dtype=np.int64)
