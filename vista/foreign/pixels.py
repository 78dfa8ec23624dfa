"""From a decoded file to 8-bit RGB: pixel modes, and the orientation that EXIF notes."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageOps

# 16-bit grey. Pillow opens files of it in these modes, older ones and .pgm in "I" (32 bits).
_GREY_16 = frozenset({"I;16", "I;16B", "I;16L", "I;16N"})
_GREY_16_IN_I = frozenset({"PNG", "PPM"})
_UNSCALED = {"I": "32-bit integers", "F": "floating-point numbers"}
_ORIENTATION = 0x0112
# Values of EXIF's orientation: those that turn or mirror, those that swap width and height.
_TURNED = range(2, 9)
_SWAPPED = range(5, 9)


def refuse_unscaled(image: Image.Image) -> None:
    """Raise ValueError where nothing says which values of the pixels are black and white."""
    what = _UNSCALED.get(image.mode)
    if what is not None and not _is_grey_16(image):
        raise ValueError(f"its pixels are {what} without a stated range: save it with 8 or 16 bits")


def to_rgb(image: Image.Image) -> Image.Image:
    """The image in 8-bit RGB. 16-bit grey is scaled (65535 is 255); alpha is dropped.

    Raises ValueError for pixels that `refuse_unscaled` refuses.
    """
    refuse_unscaled(image)
    if _is_grey_16(image):
        grey_hw = (np.asarray(image).astype(np.int64) + 128) // 257
        image = Image.fromarray(np.clip(grey_hw, 0, 255).astype(np.uint8))
    elif image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # Pillow warns of the direct way, which gives the same
    return image.convert("RGB")


def _is_grey_16(image: Image.Image) -> bool:
    return image.mode in _GREY_16 or (image.mode == "I" and image.format in _GREY_16_IN_I)


def orientation(image: Image.Image) -> int:
    """EXIF's orientation of an image whose pixels need not be decoded yet; 1 if it has none."""
    # TIFF has the tag itself, and Pillow turns the pixels of such a file.
    if "exif" not in image.info or image.format == "TIFF":
        return 1
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # damaged EXIF of a good photograph: Pillow's readers raise all sorts
        return 1


def is_turned(image: Image.Image, annotated: tuple[int, int] | None) -> bool:
    """Whether annotations for an image of `annotated` width and height, px, mean it as EXIF turns
    it: that size is the turned one and not the stored one.
    """
    return annotated == image.size[::-1] != image.size and orientation(image) in _SWAPPED


def is_ambiguous(image: Image.Image, annotated: tuple[int, int] | None) -> bool:
    """Whether EXIF turns or mirrors the image and its `annotated` size does not tell whether the
    annotations mean it so. It is then read as it is stored, which is how COCO was annotated.
    """
    number = orientation(image)
    undecided = annotated is None or image.width == image.height or number not in _SWAPPED
    return number in _TURNED and undecided


def turned(image: Image.Image) -> Image.Image:
    """The decoded image as EXIF turns it."""
    return ImageOps.exif_transpose(image)
