"""How a checkpoint wants its images: what preprocessor_config.json says, without its Python class.

Pixels take one path here whatever is installed: PIL resizes (`vista.data.geometry`), then scale,
mean and standard deviation. That is what the image processors of transformers do with their PIL
backend; no image processor and no torchvision takes part.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from vista.errors import UserError

PREPROCESSOR = "preprocessor_config.json"


@dataclass(frozen=True)
class Preprocessing:
    """Size, filter and normalisation of an encoder's input.

    Attributes:
        size: side of the square input, px.
        resample: filter that images are resized with.
        scale: factor on pixels 0..255, before the mean is taken off.
        mean, std: of each colour, after scaling.
    """

    size: int
    resample: Image.Resampling
    scale: float
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def from_config(cls, content: dict[str, Any], config: Any, resample: int) -> Self:
        """Read the content of preprocessor_config.json; `config` is the vision model's.

        Where a square is resized to more than is cropped (Dinov2: 256, then the middle 224), the
        input has the crop's size, and how much of the image is in it is the setting `fit`.

        Args:
            resample: filter where the file names none.

        Raises UserError where the filter does not exist.
        """
        named = content.get("resample")
        try:
            found = Image.Resampling(resample if named is None else named)
        except ValueError as error:
            raise UserError(
                f"{PREPROCESSOR}: resample {named!r} is no filter of PIL (0..5)"
            ) from error
        scaled, normed = content.get("do_rescale", True), content.get("do_normalize", True)
        return cls(
            size=_input_size(content, config),
            resample=found,
            scale=float(content.get("rescale_factor", 1 / 255)) if scaled else 1.0,
            mean=tuple(content["image_mean"]) if normed else (0.0, 0.0, 0.0),
            std=tuple(content["image_std"]) if normed else (1.0, 1.0, 1.0),
        )

    @property
    def mean_colour(self) -> tuple[int, int, int]:
        """The colour that normalises to about zero, 0..255."""
        red, green, blue = (min(255, max(0, round(each / self.scale))) for each in self.mean)
        return red, green, blue

    def normalise(self, images_bhwc: NDArray[np.uint8]) -> Tensor:
        """Return what the model sees [b, 3, h, w], float32, of images [b, h, w, 3], uint8."""
        pixels = torch.from_numpy(images_bhwc).permute(0, 3, 1, 2).float() * self.scale
        mean_311 = torch.tensor(self.mean).view(3, 1, 1)
        return (pixels - mean_311) / torch.tensor(self.std).view(3, 1, 1)


def read_preprocessor(folder: Path) -> dict[str, Any]:
    """Return the content of a folder's preprocessor_config.json.

    Raises UserError where it is missing or does not tell how to normalise.
    """
    try:
        text = (folder / PREPROCESSOR).read_text(encoding="utf-8")
        content: dict[str, Any] = json.loads(text)
        content["image_mean"], content["image_std"]
    except (OSError, ValueError, KeyError) as error:
        raise UserError(
            f"vision encoder {folder}: {PREPROCESSOR} is missing or lacks image_mean and "
            "image_std; without it images cannot be normalised as in training"
        ) from error
    return content


def square(value: Any, key: str) -> int:
    """The side of a square that a config gives as one number or as two equal ones.

    Raises UserError where there is none, or the two differ.
    """
    sides = {value} if isinstance(value, int) else set(value or ())
    if len(sides) != 1:
        raise UserError(f"vision encoder: config.json has {key} {value!r}, expected one side, px")
    return int(sides.pop())


def _input_size(content: dict[str, Any], config: Any) -> int:
    """The side of the input: what the preprocessor crops to, else resizes to."""
    # NaFlex: a number of patches, which a square image shares out equally.
    patches = content.get("max_num_patches", getattr(config, "num_patches", None))
    if patches and not hasattr(config, "image_size"):
        return math.isqrt(int(patches)) * square(config.patch_size, "patch_size")
    keys = ("crop_size", "size") if content.get("do_center_crop") else ("size",)
    for key in keys:
        size = content.get(key)
        if isinstance(size, int):
            return size
        if isinstance(size, dict):
            side = size.get("height") or size.get("shortest_edge")
            if side:
                return int(side)
    return square(getattr(config, "image_size", None), "image_size")
