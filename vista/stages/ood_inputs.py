"""What both experiments out of distribution read: images of a split, and two dictionaries.

Only the images that something is fitted on are in memory together; judged ones come in parts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vista.data.records import read_records
from vista.engine.artifacts import Artifact, Job
from vista.errors import UserError
from vista.stages.results import read_result
from vista.stages.vision_inputs import load_vision_sae, split_images
from vista.store.features import FeatureReader

# Judged images whose latents are in memory at once.
_IMAGES = 1024


@dataclass(frozen=True)
class SplitImages:
    """Images of one split: their rows of the feature store, ids and classes, [n] each."""

    features: FeatureReader
    images: NDArray[np.int64]
    image_ids: list[str]
    classes: list[tuple[str, ...]]

    def at(self, places: NDArray[np.int64]) -> SplitImages:
        """Those at some places."""
        ids, classes = [self.image_ids[i] for i in places], [self.classes[i] for i in places]
        return SplitImages(self.features, self.images[places], ids, classes)

    def drawn(self, limit: int | None, seed: int) -> SplitImages:
        """`limit` of them at random, in their order; None: all."""
        return self.at(np.sort(np.random.default_rng(seed).permutation(len(self.images))[:limit]))

    def of_one_class(self, split: str, key: str) -> SplitImages:
        """Those that show one class alone; UserError where there are none."""
        one = np.flatnonzero([len(each) == 1 for each in self.classes])
        if not len(one):
            raise UserError(
                f"{key}: no image of split {split!r} shows one class alone; name another"
            )
        return self.at(one)

    def judged(self, by: Callable[[SplitImages], dict[str, Any]]) -> dict[str, NDArray[Any]]:
        """What `by` says of each image, [n] by name."""
        places = np.arange(len(self.images))
        parts = [by(self.at(places[i : i + _IMAGES])) for i in places[::_IMAGES]]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


class Dictionaries:
    """The job's vision SAE, and a random one of its size and sparsity."""

    def __init__(self, job: Job, device: str, seed: int) -> None:
        from vista.stages.image_level import random_sae

        features = FeatureReader(job.input("features").store("features.zarr"))
        self.sae = load_vision_sae(job.input("sae"), features, device)
        self.random = random_sae(self.sae, round(read_result(job.input("check"))["l0"]), seed)

    def read(self, seen: SplitImages) -> tuple[dict[str, NDArray[np.float32]], NDArray[np.float32]]:
        """Latents, raw features and latents of the random dictionary [n, width], by space, and
        the SAE's errors [n]."""
        from vista.stages.image_level import image_codes, image_latents, image_means

        at = seen.features, seen.images
        latents_ns, error_n = image_codes(self.sae, *at)
        raw_nd, random_ns = image_means(*at), image_latents(self.random, *at)
        return {"latents": latents_ns, "raw": raw_nd, "random": random_ns}, error_n


def own_images(job: Job, split: str, key: str) -> SplitImages:
    """A split of the run's data; `key` names the setting, for the message."""
    return _read(job.input("features"), job.input("records"), split, key)


def further_images(job: Job, split: str, keys: Mapping[str, str]) -> dict[str, SplitImages]:
    """A split of each further set, by name; `keys` has the settings that name them."""
    sets = zip(keys, job.input_list("set_features"), job.input_list("set_records"), strict=True)
    return {name: _read(features, records, split, keys[name]) for name, features, records in sets}


def _read(features: Artifact, records: Artifact, split: str, key: str) -> SplitImages:
    reader = FeatureReader(features.store("features.zarr"))
    table = read_records(records.file("records.parquet"))
    images, rows = split_images(table, reader, split, key)
    classes = [each.categories for each in table.select(rows)]
    return SplitImages(reader, images, table.image_ids(rows), classes)
