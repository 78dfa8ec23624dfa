"""The one mapping between an image's pixels and the patch grid of a vision model.

Training, evaluation, boxes, masks and pictures all go through `ImageGeometry` and
`prepare_image`, so that a patch means the same part of the image everywhere. (The reference
program pads images in training, centre-crops them in evaluation and ignores the padding when it
maps boxes: three mappings where there must be one.)

Shapes: h, w image rows and columns; p patches, row-major; r, c rows and columns of the grid.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vista.errors import UserError

Fit = Literal["pad", "crop"]
Value = TypeVar("Value", np.bool_, np.float64)

# Mapped coordinates carry rounding errors of about 1e-13 px; a touch must be larger than this.
_TOUCH = 1e-6


def clip_box(
    box_xywh: tuple[float, float, float, float], width: int, height: int
) -> tuple[float, float, float, float]:
    """The part of a box (x, y, width, height in px) within an image of `width` x `height` px.

    A box beyond the image becomes one without area at its edge.
    """
    left, top, box_width, box_height = box_xywh
    x, y = min(max(left, 0.0), width), min(max(top, 0.0), height)
    right, bottom = min(left + box_width, width), min(top + box_height, height)
    return x, y, max(right - x, 0.0), max(bottom - y, 0.0)


@dataclass(frozen=True)
class ImageGeometry:
    """How an image of `width` x `height` px lies on the patch grid of a square model input.

    `size` is the side of the model's input and `patch` the side of a patch, both in input px.
    `fit` "pad" scales the whole image into the square and centres it; "crop" scales the shorter
    side to the square and cuts the middle out. If `patch` does not divide `size`, the remainder at
    the right and the bottom has no patch, as in a convolution with that stride.

    With `pool`, the area of all patches is divided into `pool` x `pool` patches instead, to which
    the tokens of the model's own are averaged (`vista.encoders.pooling`).

    Each patch has `per_patch` tokens, one after another (those of several encoders, or of the
    frames of a clip). Results per patch are then results per token: p counts tokens, and the grid
    is `per_patch` times wider. Where maps are scored, frames are averaged (`vista.inputs.maps`).
    """

    width: int
    height: int
    size: int
    patch: int
    fit: Fit = "pad"
    per_patch: int = 1
    pool: int | None = None

    def __post_init__(self) -> None:
        if min(self.width, self.height, self.patch, self.per_patch) < 1 or self.size < self.patch:
            raise ValueError(f"impossible geometry: {self}")
        if self.pool is not None and not 1 <= self.pool <= self.size // self.patch:
            raise ValueError(f"more pooled patches than patches: {self}")
        if self.fit not in ("pad", "crop"):
            raise ValueError(f"fit must be 'pad' or 'crop', got {self.fit!r}")

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        return self._side, self._side * self.per_patch

    @property
    def step(self) -> float:
        """Side of a patch in input px, of a pooled one where patches are pooled."""
        return self.patch if self.pool is None else self.size // self.patch * self.patch / self.pool

    @property
    def _side(self) -> int:
        return self.size // self.patch if self.pool is None else self.pool

    @property
    def n_patches(self) -> int:
        """Patches in the grid."""
        return self.grid[0] * self.grid[1]

    @property
    def resized(self) -> tuple[int, int]:
        """Width and height in input px that the whole image is resized to (at least 1 each)."""
        side = max if self.fit == "pad" else min
        scale = self.size / side(self.width, self.height)
        return max(1, round(self.width * scale)), max(1, round(self.height * scale))

    @property
    def offset(self) -> tuple[int, int]:
        """Where the resized image's left top corner lies in the input; negative if cropped."""
        width, height = self.resized
        return (self.size - width) // 2, (self.size - height) // 2

    @property
    def scale(self) -> tuple[float, float]:
        """Input px per image px, along x and y."""
        width, height = self.resized
        return width / self.width, height / self.height

    def box_to_patches(
        self, box_xywh: tuple[float, float, float, float], min_overlap: float = 0.0
    ) -> NDArray[np.bool_]:
        """Which patches [p] a box (x, y, width, height in image px) touches.

        The part of a box outside the image (the padding) touches no patch. With `min_overlap` > 0
        the box must cover at least that share of the patch's area.
        """
        x, y, width, height = clip_box(box_xywh, self.width, self.height)
        (sx, sy), (ox, oy) = self.scale, self.offset
        cover_c = self._overlap(np.array([x * sx + ox]), np.array([(x + width) * sx + ox]))[:, 0]
        cover_r = self._overlap(np.array([y * sy + oy]), np.array([(y + height) * sy + oy]))[:, 0]
        if min_overlap <= 0:
            return self._tokens(np.outer(cover_r > _TOUCH, cover_c > _TOUCH))
        share_rc = np.outer(cover_r, cover_c) / self.step**2
        return self._tokens(share_rc >= min_overlap - _TOUCH)

    def mask_to_patches(self, mask_hw: NDArray[np.bool_]) -> NDArray[np.float64]:
        """The share [p] of each patch's area that a mask over the image [h, w] covers, exactly."""
        if mask_hw.shape != (self.height, self.width):
            raise ValueError(
                f"mask of shape {mask_hw.shape} for an image of {self.height}x{self.width}"
            )
        (sx, sy), (ox, oy) = self.scale, self.offset
        columns, rows = np.arange(self.width + 0.0), np.arange(self.height + 0.0)
        cover_cw = self._overlap(columns * sx + ox, (columns + 1) * sx + ox)
        cover_rh = self._overlap(rows * sy + oy, (rows + 1) * sy + oy)
        area_rc: NDArray[np.float64] = cover_rh @ mask_hw.astype(np.float64) @ cover_cw.T
        return self._tokens(area_rc / self.step**2)

    def patch_to_box(self, p: int) -> tuple[float, float, float, float]:
        """The box (x, y, width, height) of patch `p` in image px.

        A patch in the padding lies outside the image; it is not clipped.
        """
        if not 0 <= p < self.n_patches:
            raise ValueError(f"patch {p} is not in a grid of {self.n_patches}")
        row, column = divmod(p // self.per_patch, self._side)
        (sx, sy), (ox, oy) = self.scale, self.offset
        return (
            (column * self.step - ox) / sx,
            (row * self.step - oy) / sy,
            self.step / sx,
            self.step / sy,
        )

    def _tokens(self, values_rc: NDArray[Value]) -> NDArray[Value]:
        """Values of patches as values of their tokens [p]."""
        return np.repeat(values_rc.reshape(-1), self.per_patch)

    def _overlap(
        self, start: NDArray[np.float64], stop: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Length in input px that each grid interval shares with each [start, stop): [grid, n]."""
        low = (np.arange(self._side) * self.step).astype(np.float64)[:, None]
        shared = np.minimum(low + self.step, stop[None]) - np.maximum(low, start[None])
        return np.asarray(np.maximum(shared, 0.0), dtype=np.float64)


def token_of(patch: tuple[int, int], grid: tuple[int, int]) -> int:
    """Return the number of the token at a row and a column of a grid, both from 0.

    Raises UserError if it lies outside of the grid.
    """
    (row, column), (rows, columns) = patch, grid
    if not (0 <= row < rows and 0 <= column < columns):
        raise UserError(
            f"there is no patch {row},{column}: the grid has rows 0..{rows - 1} and columns "
            f"0..{columns - 1}"
        )
    return row * columns + column


def prepare_image(
    image: Image.Image,
    size: int,
    fit: Fit,
    fill: tuple[int, int, int] = (127, 127, 127),
    resample: Image.Resampling = Image.Resampling.BICUBIC,
) -> NDArray[np.uint8]:
    """The model's input [size, size, 3]: resized and padded or cropped as `ImageGeometry` says.

    `fill` colours the padding; pass the encoder's mean colour, so that padding is about zero
    after normalisation. `resample` is the filter; pass the encoder's own. An image that has the
    right size already is not resampled.
    """
    geometry = ImageGeometry(image.width, image.height, size, size, fit)
    rgb = image.convert("RGB")
    if geometry.resized != rgb.size:
        rgb = rgb.resize(geometry.resized, resample)
    if geometry.resized == (size, size):
        return np.array(rgb)
    canvas = Image.new("RGB", (size, size), fill)
    canvas.paste(rgb, geometry.offset)
    return np.array(canvas)
