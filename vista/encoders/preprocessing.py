"""How a checkpoint's images are prepared: its image processor's settings, without the class itself.

The path of pixels does not depend on what is installed: PIL resizes (`vista.data.geometry`), then
come scale, mean and standard deviation. That is what the image processors of transformers do with
their PIL backend; no image processor and no torchvision is used.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from vista.foreign.preprocessor import ImageSteps, image_steps, side


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
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    @classmethod
    def from_config(cls, content: dict[str, Any], config: Any, resample: int) -> Self:
        """Read the settings of an image processor; `config` is the vision model's.

        Where a square is resized to more than is cropped (Dinov2: 256, then the middle 224), the
        input has the crop's size, and how much of the image is in it is the setting `fit`.

        Args:
            resample: filter where the file names none.

        Raises UserError where a value is invalid.
        """
        steps = image_steps(content)
        return cls(
            size=_input_size(steps, config),
            resample=Image.Resampling(resample if steps.resample is None else steps.resample),
            scale=steps.scale,
            mean=steps.mean,
            std=steps.std,
        )

    @property
    def mean_colour(self) -> tuple[int, int, int]:
        """The colour that normalises to about zero, 0..255."""
        red, green, blue = (min(255, max(0, round(mean / self.scale))) for mean in self.mean)
        return red, green, blue

    def normalise(self, images_bhwc: NDArray[np.uint8]) -> Tensor:
        """Return what the model sees [b, 3, h, w], float32, of images [b, h, w, 3], uint8."""
        pixels = torch.from_numpy(images_bhwc).permute(0, 3, 1, 2).float() * self.scale
        mean_311 = torch.tensor(self.mean).view(3, 1, 1)
        return (pixels - mean_311) / torch.tensor(self.std).view(3, 1, 1)


def square(value: Any, key: str) -> int:
    """The side of a square that a config gives as one number or as two equal ones.

    Raises UserError where there is none, or the two differ.
    """
    return side(value, f"vision encoder: config.json has {key}")


def _input_size(steps: ImageSteps, config: Any) -> int:
    """The side of the input: what the preprocessor crops or resizes to, else the model's own."""
    # NaFlex: a number of patches, which a square image shares out equally.
    patches = steps.max_patches or getattr(config, "num_patches", None)
    if patches and not hasattr(config, "image_size"):
        return math.isqrt(int(patches)) * square(config.patch_size, "patch_size")
    if steps.size is not None:
        return steps.size
    return square(getattr(config, "image_size", None), "image_size")
