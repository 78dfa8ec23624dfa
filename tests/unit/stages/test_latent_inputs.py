"""Where a class is in an image, for the metrics that ask."""

from __future__ import annotations

import numpy as np

from vista.data.geometry import ImageGeometry
from vista.data.masks import encode_mask
from vista.data.records import Box, Object, Record
from vista.inputs.latents import class_mask, class_patches


def mask(*rows: int) -> np.ndarray:
    where = np.zeros((8, 8), dtype=bool)
    where[list(rows)] = True
    return where


def test_a_crowd_region_is_no_place_of_its_class() -> None:
    upper, lower = Box(0.0, 0.0, 8.0, 4.0), Box(0.0, 4.0, 8.0, 4.0)
    record = Record(
        "a",
        "test",
        "a.png",
        8,
        8,
        objects=(
            Object("sheep", lower, encode_mask(mask(4, 5, 6, 7)), crowd=True),
            Object("sheep", upper, encode_mask(mask(0, 1, 2, 3))),
            Object("person", lower, encode_mask(mask(4, 5, 6, 7)), crowd=True),
            Object("dog", upper),
            Object("dog", lower, encode_mask(mask(4, 5, 6, 7))),
        ),
    )
    found = {
        category: (box.tolist(), None if where is None else where.tolist())
        for category, box, where in class_patches(record, ImageGeometry(8, 8, 8, 4, "pad"), 0.5)
    }
    upper_half = [True, True, False, False]
    # A crowd alone: the class is left out. One object without a mask: the class has none.
    assert found == {"sheep": (upper_half, upper_half), "dog": ([True] * 4, None)}
    sheep = class_mask(record, "sheep")
    assert sheep is not None
    assert np.array_equal(sheep, mask(0, 1, 2, 3))
