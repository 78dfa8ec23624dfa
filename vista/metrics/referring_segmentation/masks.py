"""Maps of patches as masks of pixels: interpolation, thresholds, and the best mask of the grid.

Suffixes: b images, x expressions, p patches, r and c rows and columns of the grid, h and w rows and
columns of an image, t thresholds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vista.data.geometry import ImageGeometry
from vista.data.masks import Rle, decode_mask

BoolArray = NDArray[np.bool_]
FloatArray = NDArray[np.float64]
# Expressions whose pixels thresholds are quantiles of, and pixels of each.
_SAMPLED, _PIXELS = 256, 4096


@dataclass(frozen=True)
class Target:
    """What an expression means: the image on the patch grid, and the mask over the image."""

    geometry: ImageGeometry
    rle: Rle

    def mask(self) -> BoolArray:
        """Return the mask [h, w]."""
        return decode_mask(self.rle)

    def cover(self) -> FloatArray:
        """Return the share of each patch that the mask covers [p]."""
        return self.geometry.mask_to_patches(self.mask())

    def patches(self, mask_cover: float) -> BoolArray:
        """Return the patches that the mask covers so much of, or else the one that it covers most;
        none where it is empty [p]."""
        cover_p = self.cover()
        least = min(mask_cover, float(cover_p.max(initial=0.0)))
        return (cover_p >= least) & (cover_p > 0)


def interpolated(map_p: NDArray[Any], geometry: ImageGeometry) -> FloatArray:
    """Return a map of patches at every pixel of the image, by bilinear interpolation [h, w].

    A value stands at the centre of its patch; of several tokens of a patch the largest counts. 0
    where the model's input does not show the pixel.
    """
    weight_hr, weight_wc = _weights(geometry)
    side = weight_hr.shape[1]
    map_rc = np.asarray(map_p, dtype=np.float64).reshape(side, side, geometry.per_patch)
    return np.asarray(weight_hr @ map_rc.max(axis=2) @ weight_wc.T)


@lru_cache(maxsize=64)
def _weights(geometry: ImageGeometry) -> tuple[FloatArray, FloatArray]:
    """Return the weights of grid rows at image rows [h, r], and of columns at columns [w, c]."""
    side = geometry.grid[0]
    weights = []
    for axis, length in ((1, geometry.height), (0, geometry.width)):
        centre_n = (np.arange(length) + 0.5) * geometry.scale[axis] + geometry.offset[axis]
        place_n = np.clip(centre_n / geometry.step - 0.5, 0, side - 1)
        low_n = np.minimum(place_n.astype(np.int64), max(side - 2, 0))
        weight_nr = np.zeros((length, side))
        weight_nr[np.arange(length), low_n] = 1 - (place_n - low_n)
        weight_nr[np.arange(length), np.minimum(low_n + 1, side - 1)] += place_n - low_n
        weight_nr[(centre_n < 0) | (centre_n > side * geometry.step)] = 0
        weights.append(weight_nr)
    return weights[0], weights[1]


@dataclass(frozen=True)
class Overlap:
    """Pixels of prediction and truth, of each expression.

    Attributes:
        intersection_x: Pixels of both.
        union_x: Pixels of either.
    """

    intersection_x: FloatArray
    union_x: FloatArray

    @property
    def iou_x(self) -> FloatArray:
        """Intersection over union; 1 where both masks are empty."""
        empty_x = self.union_x == 0
        return np.where(empty_x, 1.0, self.intersection_x / np.maximum(self.union_x, 1))


def candidate_thresholds(
    targets: Sequence[Target], maps_xp: NDArray[Any], count: int
) -> FloatArray:
    """Return 0 and quantiles of the pixels' values above 0, ascending [t]; of at most
    `_SAMPLED` expressions and `_PIXELS` pixels of each, evenly chosen."""
    step = -(-len(targets) // _SAMPLED)
    pixels = []
    for target, map_p in zip(targets[::step], maps_xp[::step], strict=True):
        if map_p.any():
            values = interpolated(map_p, target.geometry).reshape(-1)
            pixels.append(values[:: -(-len(values) // _PIXELS)])
    positive = np.concatenate([np.zeros(0), *pixels])
    positive = positive[positive > 0]
    if not len(positive):
        return np.zeros(1)
    quantiles = np.quantile(positive, np.arange(1, count) / count)
    return np.unique(np.concatenate([[0.0], quantiles]))


@dataclass(frozen=True)
class Threshold:
    """A threshold, and the mean IoU that it has on the images that it was chosen on."""

    value: float
    mean_iou: float


def choose_threshold(targets: Sequence[Target], maps_xp: NDArray[Any], count: int) -> Threshold:
    """Return the threshold with the largest mean IoU; of several the lowest.

    Args:
        targets: What each expression of the validation images means; one or more.
        maps_xp: Their maps.
        count: Thresholds that are compared.

    Raises:
        ValueError: There is no expression.
    """
    if not targets:
        raise ValueError("a threshold needs expressions of validation images")
    thresholds_t = candidate_thresholds(targets, maps_xp, count)
    total_t = np.zeros(len(thresholds_t))
    for target, map_p in zip(targets, maps_xp, strict=True):
        total_t += _overlap(target.mask(), interpolated(map_p, target.geometry), thresholds_t).iou_x
    best = int(total_t.argmax())
    return Threshold(float(thresholds_t[best]), float(total_t[best] / len(targets)))


def overlaps(
    targets: Sequence[Target],
    maps: Mapping[Any, NDArray[Any]],
    thresholds: Mapping[Any, float],
) -> dict[Any, Overlap]:
    """Return how several sets of maps [x, p] overlap the truth, each above its threshold."""
    parts: dict[Any, list[Overlap]] = {key: [] for key in maps}
    for x, target in enumerate(targets):
        truth_hw = target.mask()
        for key, maps_xp in maps.items():
            values_hw = interpolated(maps_xp[x], target.geometry)
            parts[key].append(_overlap(truth_hw, values_hw, np.array([thresholds[key]])))
    return {key: _join(part) for key, part in parts.items()}


def _overlap(truth_hw: BoolArray, values_hw: FloatArray, thresholds_t: FloatArray) -> Overlap:
    """Return the pixels above each of some ascending thresholds, of one expression [t]."""
    # Thresholds below a pixel's value: it is predicted at exactly these.
    below = np.searchsorted(thresholds_t, values_hw.reshape(-1), side="left")
    n = len(thresholds_t)
    both = np.bincount(below[truth_hw.reshape(-1)], minlength=n + 1)
    predicted = np.bincount(below, minlength=n + 1)
    both_t, predicted_t = (counts[::-1].cumsum()[::-1][1:] for counts in (both, predicted))
    union_t = predicted_t + int(truth_hw.sum()) - both_t
    return Overlap(both_t.astype(np.float64), union_t.astype(np.float64))


def best_on_grid(targets: Sequence[Target]) -> Overlap:
    """Return the overlap of the best mask that is made of whole patches, of each expression.

    To take the patches in the order of the share of their pixels that the truth covers, and to stop
    where the IoU is largest, is the best choice of all. An empty truth is met by an empty mask.
    """
    return _join([_best_on_grid(target) for target in targets])


def _best_on_grid(target: Target) -> Overlap:
    truth_hw = target.mask()
    if not truth_hw.any():
        return Overlap(np.zeros(1), np.zeros(1))
    patch_hw = _patch_of_pixels(target.geometry)
    n = target.geometry.grid[0] ** 2
    shown_hw = patch_hw >= 0
    size_p = np.bincount(patch_hw[shown_hw], minlength=n).astype(np.float64)
    hit_p = np.bincount(patch_hw[shown_hw & truth_hw], minlength=n).astype(np.float64)
    order = np.argsort(-hit_p / np.maximum(size_p, 1), kind="stable")
    hits, sizes = hit_p[order].cumsum(), size_p[order].cumsum()
    unions = sizes + float(truth_hw.sum()) - hits
    best = int((hits / unions).argmax())
    return Overlap(hits[best : best + 1], unions[best : best + 1])


@lru_cache(maxsize=64)
def _patch_of_pixels(geometry: ImageGeometry) -> NDArray[np.int64]:
    """Return the patch that holds the centre of each pixel [h, w], -1 beyond the grid."""
    side = geometry.grid[0]
    rows, columns = (
        np.floor(
            ((np.arange(length) + 0.5) * geometry.scale[axis] + geometry.offset[axis])
            / geometry.step
        ).astype(np.int64)
        for axis, length in ((1, geometry.height), (0, geometry.width))
    )
    inside = np.outer((rows >= 0) & (rows < side), (columns >= 0) & (columns < side))
    return np.where(inside, rows[:, None] * side + columns[None, :], -1)


def _join(parts: Sequence[Overlap]) -> Overlap:
    empty = np.zeros(0)
    return Overlap(
        np.concatenate([empty, *(part.intersection_x for part in parts)]),
        np.concatenate([empty, *(part.union_x for part in parts)]),
    )
