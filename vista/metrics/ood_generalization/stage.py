"""Stage: measure the accuracy of linear probes on latents under distribution shift."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

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
from vista.metrics.ood_generalization import OodGeneralizationSettings
from vista.metrics.ood_generalization.measure import Answers, Probes, ood_generalization
from vista.metrics.results import write_result

_KEY = "probing.ood_generalization"


class OodGeneralizationOrder(OodGeneralizationSettings):
    """The settings, and the SAE's device."""

    sae: SaeDevice = SaeDevice()


@stage(OodGeneralizationOrder, Inputs)
def run(job: StageJob[OodGeneralizationOrder, Inputs]) -> None:
    """Read vision SAE, its check, features and records of the run's data and of the shifted sets;
    write the result.

    Only images that show exactly one class are read. Raises UserError where a split has no such
    image, where probes have fewer than two classes to fit on, and for a set with a class that they
    were not fitted on.
    """
    import torch

    torch.set_num_threads(job.threads)
    settings, inputs = job.settings, job.inputs
    dictionaries = Dictionaries(inputs, settings.sae.device, settings.seed)
    fit_key, key = f"{_KEY}.fit_split", f"{_KEY}.split"
    run_data = inputs.features, inputs.records
    fit = split_of(*run_data, settings.fit_split, fit_key)
    fit = fit.of_one_class(settings.fit_split, fit_key)
    fit = fit.drawn(settings.fit_images, settings.seed)
    fit_class_n = _class_of(fit)
    inside = split_of(*run_data, settings.split, key).of_one_class(settings.split, key)
    sets = {}
    keys = {name: f"{_KEY}.shifts: {name}" for name in settings.shifts}
    further = further_images(inputs.set_features, inputs.set_records, settings.split, keys)
    for name, images in further.items():
        sets[name] = images.of_one_class(settings.split, keys[name])
        _refuse_unfit(keys[name], _class_of(sets[name]), fit_class_n, _class_of(inside))
    try:
        probes = Probes(
            dictionaries.read(fit)[0],
            fit_class_n,
            sizes=settings.latents,
            regularisation=settings.regularisation,
            iterations=settings.iterations,
        )
    except ValueError as error:
        raise UserError(f"{fit_key}: {error}; name another split") from error

    def answers(images: SplitImages) -> Answers:
        return Answers(
            _class_of(images),
            images.evaluated(
                lambda part: probes.right(dictionaries.read(part)[0], _class_of(part))
            ),
        )

    bootstrap = settings.bootstrap
    result = ood_generalization(
        fit_class_n,
        answers(inside),
        {name: answers(images) for name, images in sets.items()},
        seed=bootstrap.seed,
        resamples=bootstrap.resamples,
        level=bootstrap.level,
    )
    write_result(job.work, result)


def _class_of(images: SplitImages) -> NDArray[np.str_]:
    return np.array([names[0] for names in images.classes])


def _refuse_unfit(
    key: str, class_n: NDArray[np.str_], fit_n: NDArray[np.str_], inside_n: NDArray[np.str_]
) -> None:
    """Refuse a set with a class that probes were not fitted on, or without a class of `inside_n`,
    the images that its accuracy is compared with."""
    if unknown := sorted(set(class_n.tolist()) - set(fit_n.tolist())):
        raise UserError(
            f"{key} shows the class {unknown[0]!r}, which no image shows alone that probes are "
            "fitted on; give both the same names (kind list maps numbers to names), raise "
            "fit_images, or leave the class out"
        )
    if not np.isin(inside_n, class_n).any():
        raise UserError(
            f"{key} has no class of the run's split that its accuracy is compared with; name "
            "another split or set"
        )
