"""Drawn worlds that differ in one thing from another: what shifts and sets of other images are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from vista.config.drawn import DrawnData
from vista.data.glyphs import NOUNS
from vista.data.scenes import DESCRIBE
from vista.data.world import make_library, scene_images
from vista.errors import UserError


def scenes(n: int = 30, **changes: Any) -> list[tuple[Any, np.ndarray]]:
    settings = DrawnData.model_validate(changes)
    return list(scene_images(settings, make_library(settings), 1, "test", n))


def test_a_world_of_some_nouns_colours_and_grounds_shows_no_other() -> None:
    found = scenes(nouns=[48, 64], colours=["red", "cyan"], grounds=["wood"])
    objects = [item for scene, _ in found for item in scene.objects]
    assert {item.noun for item in objects} <= set(sorted(NOUNS)[48:64])
    assert {item.colour for item in objects} == {"red", "cyan"}
    assert {scene.ground for scene, _ in found} == {"wood"}


def test_noise_changes_pixels_and_nothing_else() -> None:
    for (scene, clean), (same, noisy) in zip(scenes(8), scenes(8, noise=20), strict=True):
        assert scene == same
        difference = noisy.astype(float) - clean
        # Dark pixels are clipped at 0.
        assert 12 < difference[clean > 60].std() < 25


def test_patterns_have_two_colours_no_object_and_a_caption() -> None:
    patterns = ["checks", "dots", "stripes"]
    for scene, pixels in scenes(objects="nothing", grounds=patterns):
        assert not scene.objects
        assert scene.turns == ((DESCRIBE, f"nothing on {scene.ground} ."),)
        assert len(np.unique(pixels.reshape(-1, 3), axis=0)) == 2
    (_, static), *_ = scenes(1, objects="nothing", grounds=["static"])
    assert len(np.unique(static.reshape(-1, 3), axis=0)) > 2000


@pytest.mark.parametrize("nouns", [[3, 3], [-1, 4]])
def test_a_range_without_nouns_is_refused(nouns: list[int]) -> None:
    with pytest.raises(ValueError, match=r"must be \[first, end\]"):
        scenes(nouns=nouns)


def test_more_nouns_than_there_are_is_refused() -> None:
    with pytest.raises(UserError, match=r"nouns: \[0, 11\], but there are 10 objects"):
        scenes(objects="digits", nouns=[0, 11])
