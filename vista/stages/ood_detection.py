"""Stage: do scores from an SAE tell other images from held-out ones?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from vista.artifacts import Artifact, Job
from vista.config.probing import OodDetectionSettings
from vista.data.records import read_records
from vista.errors import UserError
from vista.metrics.ood_detection import ood_detection
from vista.metrics.ood_scores import Images, ood_scores
from vista.stages.results import read_result, write_result
from vista.stages.vision_inputs import load_vision_sae, split_images
from vista.store.features import FeatureReader

if TYPE_CHECKING:
    from vista.sae.neutral import SparseAutoencoder

_KEY = "probing.ood_detection"
# Of the in-distribution images in items.parquet.
_INSIDE = ""


def run(job: Job) -> None:
    """Read vision SAE, its check, features and records of the run's data and of the sets; write the
    result and items: set ("" for in-distribution images), image_id and each score.

    Raises UserError where a split has no image, and where there are too few images or classes to
    fit the scores on.
    """
    import torch

    from vista.stages.image_level import random_sae

    torch.set_num_threads(job.threads)
    settings = OodDetectionSettings.model_validate(job.settings)
    features = FeatureReader(job.input("features").store("features.zarr"))
    sae = load_vision_sae(job.input("sae"), features)
    random = random_sae(sae, round(read_result(job.input("check"))["l0"]), settings.seed)
    saes = (sae, random)
    own = (job.input("features"), job.input("records"))
    limit = settings.fit_images, settings.seed
    fit, _, classes = _images(saes, *own, settings.fit_split, f"{_KEY}.fit_split", *limit)
    kinds = dict.fromkeys(settings.near, "near") | dict.fromkeys(settings.far, "far")
    judged, ids = {}, {}
    judged[_INSIDE], ids[_INSIDE], _ = _images(saes, *own, settings.split, f"{_KEY}.split")
    others = zip(job.input_list("set_features"), job.input_list("set_records"), strict=True)
    for (name, kind), other in zip(kinds.items(), others, strict=True):
        judged[name], ids[name], _ = _images(saes, *other, settings.split, f"{_KEY}.{kind}: {name}")
    try:
        scores = ood_scores(
            fit,
            classes,
            judged,
            neighbours=settings.neighbours,
            components=settings.components,
            smoothing=settings.smoothing,
            regularisation=settings.regularisation,
            iterations=settings.iterations,
            seed=settings.seed,
        )
    except ValueError as error:
        raise UserError(f"{_KEY}.fit_split: {error}; name another split") from error
    draws = settings.bootstrap
    result = ood_detection(
        scores[_INSIDE],
        {name: (kind, scores[name]) for name, kind in kinds.items()},
        n_fitted=len(classes),
        seed=draws.seed,
        resamples=draws.resamples,
        level=draws.level,
    )
    items: dict[str, Any] = {
        "set": np.repeat(list(scores), [len(ids[name]) for name in scores]),
        "image_id": [each for name in scores for each in ids[name]],
    }
    for score in scores[_INSIDE]:
        items[score] = np.concatenate([each[score] for each in scores.values()])
    write_result(job, result, items)


def _images(
    saes: tuple[SparseAutoencoder, SparseAutoencoder],
    features: Artifact,
    records: Artifact,
    split: str,
    key: str,
    limit: int | None = None,
    seed: int = 0,
) -> tuple[Images, list[str], list[tuple[str, ...]]]:
    """A split's images, or `limit` of them, as scores see them by the SAE and a random one, their
    ids and their classes."""
    from vista.stages.image_level import image_codes, image_latents, image_means

    reader = FeatureReader(features.store("features.zarr"))
    table = read_records(records.file("records.parquet"))
    images, rows = split_images(table, reader, split, key)
    drawn = np.sort(np.random.default_rng(seed).permutation(len(images))[:limit])
    images, rows = images[drawn], rows[drawn]
    latents_ns, error_n = image_codes(saes[0], reader, images)
    seen = Images(
        latents_ns=latents_ns,
        random_ns=image_latents(saes[1], reader, images),
        raw_nd=image_means(reader, images),
        error_n=error_n,
    )
    return seen, table.image_ids(rows), [each.categories for each in table.select(rows)]
