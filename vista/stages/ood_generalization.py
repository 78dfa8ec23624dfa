"""Stage: does a linear probe on latents keep its accuracy under shift?"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vista.config.probing import OodGeneralizationSettings
from vista.engine.artifacts import Job
from vista.errors import UserError
from vista.metrics.ood_generalization import Judged, Probes, ood_generalization
from vista.stages.ood_inputs import Dictionaries, SplitImages, further_images, own_images
from vista.stages.results import write_result
from vista.stages.vision_inputs import probing_settings

_KEY = "probing.ood_generalization"


def run(job: Job) -> None:
    """Read vision SAE, its check, features and records of the run's data and of the shifted sets;
    write the result.

    Images that show one class are read, all others left out. Raises UserError where a split has
    no such image, where probes have fewer than two classes to fit on, and for a set with a class
    that they were not fitted on.
    """
    import torch

    torch.set_num_threads(job.threads)
    settings, device = probing_settings(job, OodGeneralizationSettings)
    dictionaries = Dictionaries(job, device, settings.seed)
    fit_key, key = f"{_KEY}.fit_split", f"{_KEY}.split"
    fit = own_images(job, settings.fit_split, fit_key).of_one_class(settings.fit_split, fit_key)
    fit = fit.drawn(settings.fit_images, settings.seed)
    fit_class_n = _class_of(fit)
    inside = own_images(job, settings.split, key).of_one_class(settings.split, key)
    sets = {}
    keys = {name: f"{_KEY}.shifts: {name}" for name in settings.shifts}
    for name, each in further_images(job, settings.split, keys).items():
        sets[name] = each.of_one_class(settings.split, keys[name])
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

    def judged(images: SplitImages) -> Judged:
        return Judged(
            _class_of(images),
            images.judged(lambda part: probes.right(dictionaries.read(part)[0], _class_of(part))),
        )

    draws = settings.bootstrap
    result = ood_generalization(
        fit_class_n,
        judged(inside),
        {name: judged(each) for name, each in sets.items()},
        seed=draws.seed,
        resamples=draws.resamples,
        level=draws.level,
    )
    write_result(job, result)


def _class_of(images: SplitImages) -> NDArray[np.str_]:
    return np.array([each[0] for each in images.classes])


def _refuse_unfit(
    key: str, class_n: NDArray[np.str_], fit_n: NDArray[np.str_], inside_n: NDArray[np.str_]
) -> None:
    """Refuse a set with a class that probes can't name, or with none that it is compared on."""
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
