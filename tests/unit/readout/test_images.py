"""Images that a user gives: what is taken, what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vista.errors import UserError
from vista.readout.images import open_images

PIXELS = np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)


def test_a_file_an_image_and_an_array_are_the_same_pixels(tmp_path: Path) -> None:
    path = tmp_path / "cat.png"
    Image.fromarray(PIXELS).save(path)
    named = open_images([path, str(path), Image.fromarray(PIXELS), PIXELS])
    assert [name for name, _ in named] == ["cat.png", "cat.png", "image 2", "image 3"]
    assert all(np.array_equal(np.asarray(image), PIXELS) for _, image in named)
    assert open_images(PIXELS)[0][0] == "image 0"


def test_a_photograph_is_turned_as_its_camera_noted(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "turned.png"
    Image.fromarray(PIXELS).save(path, exif=exif)
    ((_, image),) = open_images(path)
    assert image.size == (4, 6)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ([], "no image is given"),
        ([3], "image 0 is of type int"),
        ([PIXELS.astype(float)], r"array of float64 \[4, 6, 3\]"),
        ([PIXELS[None]], "give uint8"),
        (["nowhere.png"], "nowhere.png is missing"),
        ([Path(__file__)], "no image that can be read"),
    ],
)
def test_what_is_no_image_is_refused(given: Any, says: str) -> None:
    with pytest.raises(UserError, match=says):
        open_images(given)
