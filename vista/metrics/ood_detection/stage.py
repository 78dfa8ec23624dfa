"""Stage: measure how well scores from an SAE separate other images from held-out ones."""

from __future__ import annotations

from typing import Any

import numpy as np

from vista.engine.job import StageJob, stage
from vista.errors import UserError
from vista.inputs.image_sets import (
    Dictionaries,
    Inputs,
    SplitImages,
    further_images,
    split_of,
)
from vista.inputs.vision import SaeDevice
from vista.metrics.ood_detection import OodDetectionSettings
from vista.metrics.ood_detection.measure import ood_detection
from vista.metrics.ood_detection.scores import Images, OodScores
from vista.metrics.results import write_result

_KEY = "probing.ood_detection"
# Column `set` of in-distribution images in items.parquet.
_INSIDE = ""


class OodDetectionOrder(OodDetectionSettings):
    """The settings, and the SAE's device."""

    sae: SaeDevice = SaeDevice()


@stage(OodDetectionOrder, Inputs)
def run(job: StageJob[OodDetectionOrder, Inputs]) -> None:
    """Read vision SAE, its check, features and records of the run's data and of the sets; write the
    result and items: set ("" for in-distribution images), image_id and each score.

    Raises UserError where a split has no image, and where there are too few images or classes to
    fit the scores on.
    """
    import torch

    torch.set_num_threads(job.threads)
    settings, inputs = job.settings, job.inputs
    dictionaries = Dictionaries(inputs, settings.sae.device, settings.seed)

    def read(part: SplitImages) -> Images:
        return Images(*dictionaries.read(part))

    key = f"{_KEY}.fit_split"
    fit = split_of(inputs.features, inputs.records, settings.fit_split, key)
    fit = fit.drawn(settings.fit_images, settings.seed)
    try:
        scores_of = OodScores(
            read(fit),
            fit.classes,
            neighbours=settings.neighbours,
            components=settings.components,
            smoothing=settings.smoothing,
            core_share=settings.core_share,
            regularisation=settings.regularisation,
            iterations=settings.iterations,
            seed=settings.seed,
        )
    except ValueError as error:
        raise UserError(f"{_KEY}.fit_split: {error}; name another split") from error
    kinds = dict.fromkeys(settings.near, "near") | dict.fromkeys(settings.far, "far")
    keys = {name: f"{_KEY}.{kind}: {name}" for name, kind in kinds.items()}
    split = settings.split
    sets = {_INSIDE: split_of(inputs.features, inputs.records, split, f"{_KEY}.split")}
    sets |= further_images(inputs.set_features, inputs.set_records, split, keys)
    scores = {
        name: images.evaluated(lambda part: scores_of.of(read(part)))
        for name, images in sets.items()
    }
    bootstrap = settings.bootstrap
    result = ood_detection(
        scores[_INSIDE],
        {name: (kind, scores[name]) for name, kind in kinds.items()},
        n_fitted=len(fit.images),
        seed=bootstrap.seed,
        resamples=bootstrap.resamples,
        level=bootstrap.level,
    )
    items: dict[str, Any] = {
        "set": np.repeat(list(sets), [len(images.images) for images in sets.values()]),
        "image_id": [image_id for images in sets.values() for image_id in images.image_ids],
    }
    for score in scores[_INSIDE]:
        items[score] = np.concatenate([by_score[score] for by_score in scores.values()])
    write_result(job.work, result, items)
