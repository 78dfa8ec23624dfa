"""Stage: does a linear probe on latents keep its accuracy under shift?"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vista.artifacts import Artifact, Job
from vista.config.probing import OodGeneralizationSettings
from vista.data.records import read_records
from vista.errors import UserError
from vista.metrics.ood_generalization import ClassImages, ood_generalization
from vista.stages.results import read_result, write_result
from vista.stages.vision_inputs import load_vision_sae, split_images
from vista.store.features import FeatureReader

_KEY = "probing.ood_generalization"


def run(job: Job) -> None:
    """Read vision SAE, its check, features and records of the run's data and of the shifted sets;
    write the result.

    Images that show one class are read, all others left out. Raises UserError where a split has
    no such image, where probes have fewer than two classes to fit on, and for a set with a class
    that the run's data lack.
    """
    import torch

    from vista.stages.image_level import image_latents, image_means, random_sae

    torch.set_num_threads(job.threads)
    settings = OodGeneralizationSettings.model_validate(job.settings)
    own = (job.input("features"), job.input("records"))
    features = FeatureReader(own[0].store("features.zarr"))
    sae = load_vision_sae(job.input("sae"), features)
    random = random_sae(sae, round(read_result(job.input("check"))["l0"]), settings.seed)

    def read(
        features: Artifact, records: Artifact, split: str, key: str, limit: int | None = None
    ) -> ClassImages:
        reader = FeatureReader(features.store("features.zarr"))
        images, class_n = _of_one_class(reader, records, split, key)
        drawn = np.random.default_rng(settings.seed).permutation(len(images))[:limit]
        images, class_n = images[np.sort(drawn)], class_n[np.sort(drawn)]
        vectors = {
            "latents": image_latents(sae, reader, images),
            "raw": image_means(reader, images),
            "random": image_latents(random, reader, images),
        }
        return ClassImages(vectors, class_n)

    fit = read(*own, settings.fit_split, f"{_KEY}.fit_split", settings.fit_images)
    inside = read(*own, settings.split, f"{_KEY}.split")
    known = read_records(own[1].file("records.parquet")).categories()
    sets = {}
    others = zip(job.input_list("set_features"), job.input_list("set_records"), strict=True)
    for name, other in zip(settings.shifts, others, strict=True):
        sets[name] = read(*other, settings.split, f"{_KEY}.shifts: {name}")
        if unknown := sorted(set(sets[name].class_n.tolist()) - known):
            raise UserError(
                f"{_KEY}.shifts: {name} shows the class {unknown[0]!r}, which the run's data lack; "
                "give the folders of both the same names, or leave the class out"
            )
        if not np.isin(inside.class_n, sets[name].class_n).any():
            raise UserError(
                f"{_KEY}.shifts: {name} has no class of the run's split {settings.split!r}, which "
                "its accuracy is compared with; name another split or set"
            )
    draws = settings.bootstrap
    try:
        result = ood_generalization(
            fit,
            inside,
            sets,
            sizes=settings.latents,
            regularisation=settings.regularisation,
            iterations=settings.iterations,
            seed=draws.seed,
            resamples=draws.resamples,
            level=draws.level,
        )
    except ValueError as error:
        raise UserError(f"{_KEY}.fit_split: {error}; name another split") from error
    write_result(job, result)


def _of_one_class(
    features: FeatureReader, records: Artifact, split: str, key: str
) -> tuple[NDArray[np.int64], NDArray[np.str_]]:
    """A split's images that show one class, and their classes."""
    table = read_records(records.file("records.parquet"))
    images, rows = split_images(table, features, split, key)
    shown = [each.categories for each in table.select(rows)]
    one = np.array([len(each) == 1 for each in shown])
    if not one.any():
        raise UserError(f"{key}: no image of split {split!r} shows one class alone; name another")
    return images[one], np.array([each[0] for each in shown if len(each) == 1])
