"""Settings of a checkpoint's image processor, read from its files and checked; no torch here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from reprlib import repr as shown  # cuts long values
from typing import Any

from vista.errors import UserError
from vista.foreign.text import read_json_object
from vista.foreign.values import flag, integer, number

PREPROCESSOR = "preprocessor_config.json"
VIDEO = "video_preprocessor_config.json"  # the same keys, of a model that sees videos
# Where transformers 5 writes the same values, under the key, for a model with a text tower too.
PROCESSOR, _KEY = "processor_config.json", "image_processor"

_LARGEST_SIDE = 10_000  # px; more is no image
_MOST_PATCHES = 1_000_000
_SMALLEST, _LARGEST = 1e-6, 1e6  # of a factor or a standard deviation; float32 holds the results
# PIL's filters by name, as older files have them.
_FILTERS = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")


@dataclass(frozen=True)
class ImageSteps:
    """What is done to an image before a model sees it.

    Attributes:
        size: side of the square input, px; None: the model's own.
        max_patches: most patches of an image, for models of no fixed size.
        resample: filter that images are resized with, as PIL counts them; None: the family's own.
        scale: factor on pixels 0..255, before the mean is taken off.
        mean, std: of each colour, after scaling.
    """

    size: int | None
    max_patches: int | None
    resample: int | None
    scale: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


def read_preprocessor(folder: Path) -> dict[str, Any]:
    """The settings of a checkpoint's image processor: those of preprocessor_config.json, or where
    there is none those that transformers 5 writes into processor_config.json.

    Raises UserError where there are none, or one of them is invalid.
    """
    for file, content in preprocessors(folder):
        image_steps(content, str(folder / file))
        return content
    raise UserError(
        f"vision encoder {folder}: {PREPROCESSOR} is missing, and so is {_KEY} in {PROCESSOR}; "
        "without them images cannot be normalised as in training"
    )


def preprocessors(folder: Path) -> list[tuple[str, dict[str, Any]]]:
    """The files of a folder that have settings of an image processor, and these; the one that
    counts first."""
    entries = []
    for name in (PREPROCESSOR, VIDEO):
        if (folder / name).is_file():
            entries.append((name, read_json_object(folder / name)))
    if (folder / PROCESSOR).is_file():
        nested = read_json_object(folder / PROCESSOR).get(_KEY)
        if isinstance(nested, dict):
            entries.append((PROCESSOR, nested))
    return entries


def image_steps(content: Mapping[str, Any], file: str = PREPROCESSOR) -> ImageSteps:
    """The steps that the settings of an image processor describe. `file` is named in errors.

    Raises UserError where a value is invalid.
    """
    if _flag(content, "do_rescale", True, file):
        scale = _positive(content.get("rescale_factor"), 1 / 255, f"{file}: rescale_factor")
        if _flag(content, "rescale_offset", False, file):
            raise UserError(
                f"{file}: rescale_offset moves pixels after scaling them, which is not supported; "
                "take another checkpoint"
            )
    else:
        scale = 1.0
    mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    if _flag(content, "do_normalize", True, file):
        mean, std = _colours(content, "image_mean", file), _colours(content, "image_std", file)
        if not all(_SMALLEST <= value <= _LARGEST for value in std):
            raise UserError(
                f"{file}: image_std is {shown(content['image_std'])}, expected more than 0"
            )
        if not all(0 <= value <= 255 * scale * (1 + _SMALLEST) for value in mean):
            raise UserError(
                f"{file}: image_mean is {shown(content['image_mean'])}, but pixels are scaled to "
                f"0..{255 * scale:g}; correct it, or rescale_factor"
            )
    return ImageSteps(
        size=input_size(content, file),
        max_patches=_count(content.get("max_num_patches"), f"{file}: max_num_patches"),
        resample=_filter(content.get("resample"), file),
        scale=scale,
        mean=mean,
        std=std,
    )


def side(value: Any, name: str) -> int:
    """The side of a square, px, that a file gives as one number, two equal ones or by name.

    Raises UserError that begins with `name` where there is none, or the two differ.
    """
    pixels = _side(value, name)
    if pixels is None:
        raise UserError(f"{name} {shown(value)}, expected one side, px")
    return pixels


def _side(value: Any, name: str) -> int | None:
    """As `side`; None where the value names no side, but a number of pixels, say."""
    if isinstance(value, Mapping):
        groups = (("height", "width"), ("shortest_edge",), ("longest_edge",))
        named = [[value[key] for key in keys if value.get(key) is not None] for keys in groups]
        sides = next((group for group in named if group), None)
    elif isinstance(value, list | tuple):
        sides = list(value) or [None]
    else:
        sides = None if value is None else [value]
    if sides is None:
        return None
    numbers = {integer(edge) for edge in sides}
    pixels = numbers.pop()
    if numbers or pixels is None or not 1 <= pixels <= _LARGEST_SIDE:
        raise UserError(f"{name} {shown(value)}, expected one side, px")
    return pixels


def input_size(content: Mapping[str, Any], file: str = PREPROCESSOR) -> int | None:
    """The side of the input, px: what the processor crops to, else resizes to; None: the model's
    own. Raises UserError where a value is invalid."""
    keys = ["size"] if _flag(content, "do_resize", True, file) else []
    if _flag(content, "do_center_crop", False, file):
        keys.insert(0, "crop_size")
    sides = (_side(content.get(key), f"{file}: {key} is") for key in keys)
    return next((pixels for pixels in sides if pixels is not None), None)


def _flag(content: Mapping[str, Any], key: str, default: bool, file: str) -> bool:
    value = content.get(key)
    if value is None:
        return default
    truth = flag(value)
    if truth is None:
        raise UserError(f"{file}: {key} is {shown(value)}, expected true or false")
    return truth


def _colours(content: Mapping[str, Any], key: str, file: str) -> tuple[float, float, float]:
    if content.get(key) is None:
        raise UserError(
            f"{file} lacks image_mean or image_std; without them images cannot be normalised as in "
            "training"
        )
    value = content[key]
    # One number means all colours.
    numbers = [
        number(entry) for entry in (value if isinstance(value, list | tuple) else [value] * 3)
    ]
    if len(numbers) == 3:
        red, green, blue = numbers
        if red is not None and green is not None and blue is not None:
            return red, green, blue
    raise UserError(f"{file}: {key} is {shown(value)}, expected a number, or three, one a colour")


def _positive(value: Any, default: float, name: str) -> float:
    factor = default if value is None else number(value)
    if factor is None or not _SMALLEST <= factor <= _LARGEST:
        raise UserError(f"{name} is {shown(value)}, expected a number above 0")
    return factor


def _count(value: Any, name: str) -> int | None:
    if value is None:
        return None
    count = integer(value)
    if count is None or not 1 <= count <= _MOST_PATCHES:
        raise UserError(f"{name} is {shown(value)}, expected a whole number above 0")
    return count


def _filter(value: Any, file: str) -> int | None:
    if value is None:
        return None
    if isinstance(value, str) and value.strip().lower() in _FILTERS:
        return _FILTERS.index(value.strip().lower())
    index = integer(value)
    if index is None or not 0 <= index < len(_FILTERS):
        raise UserError(f"{file}: resample {shown(value)} is no filter of PIL (0..5)")
    return index
