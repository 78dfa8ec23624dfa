"""COCO run-length masks: polygons, uncompressed and compressed runs, without pycocotools.

A mask of h rows and w columns is read column by column (column-major). Its runs alternate
between background and object and begin with background, so the first run may be 0. The
compressed form writes each run as a signed number in base 32, five bits a character, from the
third run on as the difference to the run two before. Reference: cocoapi, common/maskApi.c.

Shapes: h rows, w columns of an image.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vista.foreign.values import integer, number

Mask = NDArray[np.bool_]
Rle = dict[str, Any]  # {"size": [h, w], "counts": str (compressed) or list of runs}
_LONGEST_RUN = 60  # bits
_FARTHEST = 1e9  # px: farther out the crossings of an outline are lost in rounding, or infinite


def encode_mask(mask_hw: Mask) -> Rle:
    """Compressed runs of a boolean mask [h, w]: {"size": [h, w], "counts": str}."""
    if mask_hw.ndim != 2:
        raise ValueError(f"a mask has two dimensions, got shape {mask_hw.shape}")
    height, width = mask_hw.shape
    return {"size": [height, width], "counts": compress_runs(mask_runs(mask_hw))}


def decode_mask(rle: Rle) -> Mask:
    """The mask [h, w] of compressed or uncompressed runs.

    Raises ValueError if the runs do not add up to h * w or the text is no run-length code.
    """
    height, width = (int(n) for n in rle["size"])
    counts = rle["counts"]
    runs = decompress_runs(counts) if isinstance(counts, str) else _whole_runs(counts)
    if any(run < 0 for run in runs) or sum(runs) != height * width:
        raise ValueError(
            f"runs sum to {sum(runs)}, a mask of {height}x{width} has {height * width}"
        )
    values = np.arange(len(runs)) % 2 == 1
    return np.repeat(values, runs).reshape(width, height).T


def _whole_runs(counts: Any) -> list[int]:
    runs = [None if isinstance(run, str) else integer(run) for run in counts]
    whole = [run for run in runs if run is not None]
    if len(whole) != len(runs):
        raise ValueError("a run is no whole number")
    return whole


def mask_runs(mask_hw: Mask) -> list[int]:
    """Lengths of the alternating runs, column by column, the first of background."""
    flat = mask_hw.T.reshape(-1)
    if flat.size == 0:
        return []
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    bounds = np.concatenate([[0], edges, [flat.size]])
    runs = [int(n) for n in np.diff(bounds)]
    return [0, *runs] if flat[0] else runs


def compress_runs(runs: Sequence[int]) -> str:
    """COCO's text form of the runs."""
    out: list[str] = []
    for i, run in enumerate(runs):
        value = run - runs[i - 2] if i > 2 else run
        more = True
        while more:
            digit = value & 0x1F
            value >>= 5
            # The sign bit of the last digit must be the sign of the number.
            more = value != -1 if digit & 0x10 else value != 0
            out.append(chr((digit | 0x20 if more else digit) + 48))
    return "".join(out)


def decompress_runs(text: str) -> list[int]:
    """The runs of COCO's text form; ValueError if it is cut off or has foreign characters."""
    runs: list[int] = []
    at = 0
    while at < len(text):
        value, shift, more = 0, 0, True
        while more:
            if at >= len(text):
                raise ValueError("the run-length code is cut off")
            digit = ord(text[at]) - 48
            if not 0 <= digit < 64:
                raise ValueError(f"{text[at]!r} is no character of a run-length code")
            if shift > _LONGEST_RUN:
                raise ValueError("a run is longer than any mask")
            value |= (digit & 0x1F) << shift
            shift += 5
            at += 1
            more = bool(digit & 0x20)
            if not more and digit & 0x10:
                value -= 1 << shift
        if len(runs) > 2:
            value += runs[-2]
        runs.append(value)
    return runs


def outlines(value: Any) -> list[list[float]]:
    """The polygons [x0, y0, x1, y1, ...] of a segmentation, however it nests them.

    COCO has a list of them. Other programs write one alone, lists of lists of them, or lists of
    points [x, y]; numbers may be text. Raises ValueError for what is no list or no number.
    """
    if not isinstance(value, list):
        raise ValueError(f"{str(value)[:80]!r} is no list of x, y pairs")
    if value and not any(isinstance(entry, list) for entry in value):
        return [[_coordinate(entry) for entry in value]]
    polygons = [polygon for entry in value for polygon in outlines(entry)]
    if len(polygons) == len(value) and all(len(polygon) == 2 for polygon in polygons):
        return [[coordinate for point in polygons for coordinate in point]] if polygons else []
    return polygons


def _coordinate(value: Any) -> float:
    coordinate = number(value)
    if coordinate is None:
        raise ValueError(f"{str(value)[:80]!r} is no finite number of pixels")
    return coordinate


def polygons_to_mask(polygons: Sequence[Sequence[float]], height: int, width: int) -> Mask:
    """The union of polygons [x0, y0, x1, y1, ...] as a mask [h, w].

    A pixel belongs to a polygon if its centre lies inside by the even-odd rule. cocoapi rounds
    the outline to fifths of a pixel first, so single pixels of an outline may differ from it.
    Raises ValueError for a polygon with fewer than three points or an odd count of numbers.
    """
    # Column-major, as the runs will be read.
    union_hw = np.zeros((height, width), dtype=np.bool_, order="F")
    for polygon in polygons:
        if len(polygon) < 6 or len(polygon) % 2:
            raise ValueError(
                f"a polygon needs three or more x, y pairs, got {len(polygon)} numbers"
            )
        if not np.isfinite(polygon).all() or np.abs(polygon).max() > _FARTHEST:
            raise ValueError("a polygon has a coordinate that is no finite number of pixels")
        union_hw |= _fill_polygon(
            np.asarray(polygon, dtype=np.float64).reshape(-1, 2), height, width
        )
    return union_hw


def _fill_polygon(points: NDArray[np.float64], height: int, width: int) -> Mask:
    # Toggle at every crossing of a pixel column's centre line, then a running parity fills.
    mask_hw = np.zeros((height, width), dtype=np.bool_, order="F")
    # Only the polygon's own rows and columns: most objects are small.
    left, top = np.clip(np.floor(points.min(axis=0)).astype(int), 0, [width, height])
    right, bottom = np.clip(np.ceil(points.max(axis=0)).astype(int), 0, [width, height])
    toggles = np.zeros((bottom - top + 1, right - left), dtype=np.int32)
    for (x0, y0), (x1, y1) in zip(points, np.roll(points, -1, axis=0), strict=True):
        if x0 > x1:
            x0, y0, x1, y1 = x1, y1, x0, y0
        # Columns whose centre c + 0.5 lies in [x0, x1): half-open, so a corner counts once.
        first, last = (min(max(int(np.ceil(x - 0.5)), left), right) for x in (x0, x1))
        if first >= last:
            continue
        columns = np.arange(first, last)
        crossing = y0 + (columns + 0.5 - x0) * (y1 - y0) / (x1 - x0)
        rows = np.clip(np.ceil(crossing - 0.5), top, bottom).astype(int)
        # One edge crosses a column once, so no index comes twice.
        toggles[rows - top, columns - left] += 1
    mask_hw[top:bottom, left:right] = np.cumsum(toggles, axis=0)[:-1] % 2 == 1
    return mask_hw
