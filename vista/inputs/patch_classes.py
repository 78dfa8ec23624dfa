"""The classes of the objects at the patches of an image."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vista.config.vision_sae import LabelVisionSettings
from vista.data.geometry import ImageGeometry
from vista.data.records import Record, RecordTable, decode_mask
from vista.engine.artifacts import Artifact
from vista.inputs.latents import class_patches, read_geometry


def classes_of_patches(
    records: RecordTable,
    images: NDArray[np.int64],
    rows: NDArray[np.int64],
    features: Artifact,
    settings: LabelVisionSettings,
) -> Callable[[int], Callable[[int], Collection[str]]]:
    """Return a function from an image to a function from its patches to the classes on them.

    A token that stands for its whole image has all classes of the image.

    Args:
        records: The records of the images.
        images: Rows of the feature store.
        rows: A row of `records` for each of `images`.
        features: The features, with how images lie on their patch grid.
        settings: Whether a patch or the whole image counts, and how much of a patch a mask covers.
    """
    row_of = dict(zip(images.tolist(), rows.tolist(), strict=True))
    placing = read_geometry(features)

    def classes_at(image: int) -> Callable[[int], Collection[str]]:
        record = records[row_of[image]]
        geometry = ImageGeometry(record.width, record.height, **placing)
        if settings.by == "image" or geometry.n_patches == 1:
            return lambda patch: set(record.categories)
        patches_of = {
            category: box_p if mask_p is None else mask_p
            for category, box_p, mask_p in class_patches(record, geometry, settings.mask_cover)
        }
        return lambda patch: {category for category, in_p in patches_of.items() if in_p[patch]}

    return classes_at


def patch_classes(record: Record, placing: dict[str, Any], mask_cover: float) -> list[str | None]:
    """Return the class of the object that covers each patch most; None where none covers
    `mask_cover` of it.

    An object without a mask covers its box; crowd regions do not count.

    Args:
        record: Record of the image.
        placing: How images lie on the patch grid, as `read_geometry` gives it.
        mask_cover: Least share of a patch that an object must cover.
    """
    geometry = ImageGeometry(record.width, record.height, **placing)
    best_p = np.zeros(geometry.n_patches)
    classes: list[str | None] = [None] * geometry.n_patches
    for item in record.objects:
        if item.crowd:
            continue
        if item.rle is not None:
            cover_p = geometry.mask_to_patches(decode_mask(item.rle))
        else:
            cover_p = geometry.box_to_patches(item.box, min_overlap=mask_cover).astype(float)
        for p in np.flatnonzero((cover_p >= mask_cover) & (cover_p > best_p)):
            best_p[p], classes[p] = cover_p[p], item.category
    return classes
