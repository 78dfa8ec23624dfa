"""Images that a user gives: files, Pillow images, arrays."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from vista.errors import UserError, reason_of
from vista.foreign.pixels import to_rgb, turned
from vista.foreign.text import one_line

# A file, a Pillow image, or pixels [h, w, 3] or [h, w], uint8.
ImageLike = str | Path | Image.Image | NDArray[np.uint8]
LARGEST = 50_000_000  # px


def open_images(images: ImageLike | Iterable[ImageLike]) -> list[tuple[str, Image.Image]]:
    """Return images in RGB with their names: a file's name, else "image 0", "image 1", ...

    Raises:
        UserError: One cannot be read as an image, or has more than 50 million px.
    """
    one = isinstance(images, str | Path | Image.Image | np.ndarray)
    given: Sequence[Any] = [images] if one else list(images)  # type: ignore[arg-type]
    if not given:
        raise UserError("no image is given")
    return [_named(image, number) for number, image in enumerate(given)]


def _named(image: Any, number: int) -> tuple[str, Image.Image]:
    if isinstance(image, Image.Image):
        return f"image {number}", _rgb(image, f"image {number}")
    if isinstance(image, np.ndarray):
        return f"image {number}", _of_array(image, number)
    if isinstance(image, str | Path):
        return Path(image).name, _of_file(Path(image))
    raise UserError(
        f"image {number} is of type {type(image).__name__}: give a file, a Pillow image, or an "
        "array of uint8 [h, w, 3]"
    )


def _of_array(pixels: NDArray[Any], number: int) -> Image.Image:
    grey = pixels.ndim == 2
    if pixels.dtype != np.uint8 or not (grey or (pixels.ndim == 3 and pixels.shape[2] == 3)):
        raise UserError(
            f"image {number} is an array of {pixels.dtype} {list(pixels.shape)}: give uint8 "
            "[h, w, 3] or [h, w]"
        )
    return _rgb(Image.fromarray(pixels), f"image {number}")


def _of_file(path: Path) -> Image.Image:
    name = one_line(path)
    try:
        # By its bytes: Pillow maps a file that it is given by its path.
        with Image.open(io.BytesIO(path.read_bytes())) as image:
            _refuse_large(image, name)
            # As people see it: cameras note how the image is to be turned.
            return to_rgb(turned(image))
    except UserError:
        raise
    except FileNotFoundError as error:
        raise UserError(f"{name} is missing") from error
    except UnidentifiedImageError as error:
        raise UserError(f"{name} is no image that can be read") from error
    except Exception as error:  # Pillow raises anything on foreign bytes
        raise UserError(f"{name} cannot be read as an image ({reason_of(error)})") from error


def _rgb(image: Image.Image, name: str) -> Image.Image:
    _refuse_large(image, name)
    try:
        return to_rgb(image)
    except (ValueError, OSError) as error:
        raise UserError(f"{name} cannot be read as an image ({reason_of(error)})") from error


def _refuse_large(image: Image.Image, name: str) -> None:
    if image.width * image.height > LARGEST:
        raise UserError(f"{name} has more than {LARGEST:,} px; make it smaller")
