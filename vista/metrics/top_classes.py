"""Which classes the top images of a vision SAE's latents speak for."""

from __future__ import annotations

from collections.abc import Callable, Collection

import numpy as np
from numpy.typing import NDArray

from vista.config.vision_sae import LabelVisionSettings
from vista.data.geometry import ImageGeometry
from vista.data.records import RecordTable
from vista.engine.artifacts import Artifact
from vista.inputs.latents import class_patches, read_geometry


def classes_of_patches(
    records: RecordTable,
    images: NDArray[np.int64],
    rows: NDArray[np.int64],
    features: Artifact,
    settings: LabelVisionSettings,
) -> Callable[[int], Callable[[int], Collection[str]]]:
    """Give for one of `images` (rows of the feature store, with `rows` of the records) what gives
    for each of its patches the classes that it speaks for.

    A token that stands for its whole image speaks for all that the image shows.
    """
    row_of = dict(zip(images.tolist(), rows.tolist(), strict=True))
    placing = read_geometry(features)

    def classes_at(image: int) -> Callable[[int], Collection[str]]:
        record = records[row_of[image]]
        geometry = ImageGeometry(record.width, record.height, **placing)
        if settings.by == "image" or geometry.n_patches == 1:
            return lambda patch: set(record.categories)
        held = {
            category: box_p if mask_p is None else mask_p
            for category, box_p, mask_p in class_patches(record, geometry, settings.mask_cover)
        }
        return lambda patch: {category for category, in_p in held.items() if in_p[patch]}

    return classes_at
