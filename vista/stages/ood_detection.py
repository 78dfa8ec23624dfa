"""Stage: do scores from an SAE tell other images from held-out ones?"""

from __future__ import annotations

from typing import Any

import numpy as np

from vista.config.probing import OodDetectionSettings
from vista.engine.artifacts import Job
from vista.errors import UserError
from vista.metrics.ood_detection import ood_detection
from vista.metrics.ood_scores import Images, OodScores
from vista.stages.ood_inputs import Dictionaries, SplitImages, further_images, own_images
from vista.stages.results import write_result
from vista.stages.vision_inputs import probing_settings

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

    torch.set_num_threads(job.threads)
    settings, device = probing_settings(job, OodDetectionSettings)
    dictionaries = Dictionaries(job, device, settings.seed)

    def seen(part: SplitImages) -> Images:
        return Images(*dictionaries.read(part))

    fit = own_images(job, settings.fit_split, f"{_KEY}.fit_split")
    fit = fit.drawn(settings.fit_images, settings.seed)
    try:
        scores_of = OodScores(
            seen(fit),
            fit.classes,
            neighbours=settings.neighbours,
            components=settings.components,
            smoothing=settings.smoothing,
            regularisation=settings.regularisation,
            iterations=settings.iterations,
            seed=settings.seed,
        )
    except ValueError as error:
        raise UserError(f"{_KEY}.fit_split: {error}; name another split") from error
    kinds = dict.fromkeys(settings.near, "near") | dict.fromkeys(settings.far, "far")
    keys = {name: f"{_KEY}.{kind}: {name}" for name, kind in kinds.items()}
    sets = {_INSIDE: own_images(job, settings.split, f"{_KEY}.split")}
    sets |= further_images(job, settings.split, keys)
    scores = {
        name: each.judged(lambda part: scores_of.of(seen(part))) for name, each in sets.items()
    }
    draws = settings.bootstrap
    result = ood_detection(
        scores[_INSIDE],
        {name: (kind, scores[name]) for name, kind in kinds.items()},
        n_fitted=len(fit.images),
        seed=draws.seed,
        resamples=draws.resamples,
        level=draws.level,
    )
    items: dict[str, Any] = {
        "set": np.repeat(list(sets), [len(each.images) for each in sets.values()]),
        "image_id": [image_id for each in sets.values() for image_id in each.image_ids],
    }
    for score in scores[_INSIDE]:
        items[score] = np.concatenate([each[score] for each in scores.values()])
    write_result(job, result, items)
