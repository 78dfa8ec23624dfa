"""Images of several sets as an SAE and a random dictionary represent them: the inputs of both
experiments out of distribution.

The latents of the images that something is fitted on are in memory together; those of evaluated
images are read in parts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from vista.data.records import read_records
from vista.engine.artifacts import Artifact
from vista.errors import UserError
from vista.inputs.control_dictionaries import random_sae
from vista.inputs.image_vectors import image_codes, image_latents, image_means
from vista.inputs.vision import load_vision_sae, split_images
from vista.metrics.results import read_result
from vista.store.features import FeatureReader

Name = TypeVar("Name")
# Evaluated images whose latents are in memory at once.
_IMAGES = 1024


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """A vision SAE with its check, and features and records of the run's data and of each set."""

    sae: Artifact
    check: Artifact
    features: Artifact
    records: Artifact
    set_features: list[Artifact] = field(default_factory=list)
    set_records: list[Artifact] = field(default_factory=list)


@dataclass(frozen=True)
class SplitImages:
    """Images of one split: their rows of the feature store, ids and classes, [n] each."""

    features: FeatureReader
    images: NDArray[np.int64]
    image_ids: list[str]
    classes: list[tuple[str, ...]]

    def subset(self, places: NDArray[np.int64]) -> SplitImages:
        """Return the images at some places."""
        ids, classes = [self.image_ids[i] for i in places], [self.classes[i] for i in places]
        return SplitImages(self.features, self.images[places], ids, classes)

    def drawn(self, limit: int | None, seed: int) -> SplitImages:
        """Return `limit` random images, in their order; None: all."""
        places = np.random.default_rng(seed).permutation(len(self.images))[:limit]
        return self.subset(np.sort(places))

    def of_one_class(self, split: str, key: str) -> SplitImages:
        """Return the images that show one class alone; UserError where there are none."""
        places = np.flatnonzero([len(classes) == 1 for classes in self.classes])
        if not len(places):
            raise UserError(
                f"{key}: no image of split {split!r} shows one class alone; name another"
            )
        return self.subset(places)

    def evaluated(
        self, evaluate: Callable[[SplitImages], Mapping[Name, NDArray[Any]]]
    ) -> dict[Name, NDArray[Any]]:
        """Return the values [n] that `evaluate` gives to images, by name; it gets them in parts."""
        places = np.arange(len(self.images))
        parts = [evaluate(self.subset(places[i : i + _IMAGES])) for i in places[::_IMAGES]]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


class Dictionaries:
    """The vision SAE, and a random one of its size and sparsity."""

    def __init__(self, inputs: Inputs, device: str, seed: int) -> None:
        features = FeatureReader(inputs.features.store("features.zarr"))
        self.sae = load_vision_sae(inputs.sae, features, device)
        self.random = random_sae(self.sae, round(read_result(inputs.check)["l0"]), seed)

    def read(
        self, images: SplitImages
    ) -> tuple[dict[str, NDArray[np.float32]], NDArray[np.float32]]:
        """Return latents, raw features and latents of the random dictionary [n, width], by space,
        and the SAE's errors [n]."""
        rows = images.features, images.images
        latents_ns, error_n = image_codes(self.sae, *rows)
        raw_nd, random_ns = image_means(*rows), image_latents(self.random, *rows)
        return {"latents": latents_ns, "raw": raw_nd, "random": random_ns}, error_n


def further_images(
    features: Sequence[Artifact], records: Sequence[Artifact], split: str, keys: Mapping[str, str]
) -> dict[str, SplitImages]:
    """Read a split of each further set, by name; `keys` has the settings that name them."""
    sets = zip(keys, features, records, strict=True)
    return {
        name: split_of(set_features, set_records, split, keys[name])
        for name, set_features, set_records in sets
    }


def split_of(features: Artifact, records: Artifact, split: str, key: str) -> SplitImages:
    """Read a split of a data set; `key` names the setting, for messages."""
    reader = FeatureReader(features.store("features.zarr"))
    table = read_records(records.file("records.parquet"))
    images, rows = split_images(table, reader, split, key)
    classes = [record.categories for record in table.select(rows)]
    return SplitImages(reader, images, table.image_ids(rows), classes)
