"""Stage: combine the features of several encoders, shard by shard (arXiv 2406.16860).

The features are not standardised.

Legend of shape suffixes: b image, p patch token, d channel.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from vista.config.base import Settings
from vista.engine.artifacts import Artifact
from vista.engine.forecast import formulas
from vista.engine.forecast.need import Need
from vista.engine.forecast.shapes import Shapes, many, one
from vista.engine.job import StageJob, stage
from vista.engine.node import Node
from vista.errors import UserError
from vista.inputs.latents import GEOMETRY, read_geometry
from vista.progress import progress
from vista.store.features import FeatureReader, FeatureWriter


class Combination(Settings):
    """How the features of the encoders become one."""

    kind: Literal["combined"]
    how: Literal["concat", "interleave", "windows"]
    grid: int | None = None


class CombinedFeatures(Settings):
    """Settings of the combined encoder."""

    source: Combination


class CombineFeaturesOrder(Settings):
    """The combined encoder."""

    encoder: CombinedFeatures


@dataclass(frozen=True)
class Inputs:
    """The features of the encoders, two or more."""

    features: list[Artifact]


@stage(CombineFeaturesOrder, Inputs)
def run(job: StageJob[CombineFeaturesOrder, Inputs]) -> None:
    """Read stores of features; write features.zarr and geometry.json.

    concat: the channels of all encoders at each patch. interleave: a token of each encoder a patch,
    that of the first encoder first; narrower ones are padded with zeros at the end, and the grid is
    so many times as wide. windows: at each place of a grid the channels of the patches of all
    encoders there, encoder after encoder, row after row of the window; geometry.json then has
    `windows`, the tokens of a window and their channels for each encoder.

    Raises UserError where the stores hold other images or another order of them, or where their
    patches are not the same parts of an image, or a grid that does not divide theirs.
    """
    parts = job.inputs.features
    readers = [FeatureReader(part.store("features.zarr")) for part in parts]
    places = [read_geometry(part) for part in parts]
    first = readers[0]
    source = job.settings.encoder.source
    for part, reader, placing in zip(parts[1:], readers[1:], places[1:], strict=True):
        if first.image_ids != reader.image_ids:
            raise UserError(
                f"{parts[0].path} and {part.path} hold other images, or another order of them; run "
                "the workflow again so that both come from one data set"
            )
        same_grid = source.how == "windows" or first.grid == reader.grid
        if not same_grid or _covered(places[0]) != _covered(placing):
            grids = " and ".join(
                f"{rows} x {columns}" for rows, columns in (first.grid, reader.grid)
            )
            raise UserError(
                f"a combined encoder needs encoders whose patches are the same parts of an image; "
                f"the grids are {grids} (size, patch, fit, and pool if any: {_listed(places[0])} "
                f"and {_listed(placing)}): choose others, or pool all to one grid by "
                "encoders.<name>.pool"
            )
    widths = [reader.shape[2] for reader in readers]
    placing, (rows, columns) = places[0] | {"per_patch": 1}, first.grid
    if source.how == "windows":
        assert source.grid is not None
        sides = [_window(*pair, source.grid) for pair in zip(parts, readers, strict=True)]
        rows = columns = source.grid
        windows = [(side**2, width) for side, width in zip(sides, widths, strict=True)]
        d_vision = sum(tokens * width for tokens, width in windows)
        placing |= {"pool": source.grid, "windows": windows}
    elif source.how == "interleave":
        columns, d_vision = columns * len(parts), max(widths)
        placing["per_patch"] = len(parts)
    else:
        d_vision = sum(widths)
    writer = FeatureWriter(
        job.work / "features.zarr", first.image_ids, grid=(rows, columns), d_vision=d_vision
    )
    done = writer.done_shards()
    for shard in progress(range(writer.shards), desc="features", unit="shard"):
        if shard not in done:
            images = writer.shard_images(shard)
            maps = [reader.read(images) for reader in readers]
            if source.grid is not None:
                maps = [to_windows(map_bpd, source.grid) for map_bpd in maps]
            joined = _interleaved if source.how == "interleave" else _concatenated
            writer.write_shard(shard, joined(maps))
    writer.close()
    text = json.dumps(placing, sort_keys=True) + "\n"
    (job.work / GEOMETRY).write_text(text, encoding="utf-8")


def to_windows(map_bpd: NDArray[Any], grid: int) -> NDArray[Any]:
    """Return the channels of all patches at each place of a grid, [b, grid * grid, window * d].

    Args:
        map_bpd: A square map, row after row, whose side `grid` divides.
        grid: Side of the grid of places.
    """
    b, p, d = map_bpd.shape
    side = math.isqrt(p) // grid
    # image, row of the place, row in its window, column of the place, column in its window, channel
    split = map_bpd.reshape(b, grid, side, grid, side, d)
    return split.transpose(0, 1, 3, 2, 4, 5).reshape(b, grid * grid, side * side * d)


def _window(part: Artifact, reader: FeatureReader, grid: int) -> int:
    """Return the side of the windows in one encoder's map. Raises UserError if there is none."""
    rows, columns = reader.grid
    if rows != columns or rows % grid:
        raise UserError(
            f"{part.path}: its grid is {rows} x {columns}, of which {grid} x {grid} places have no "
            "whole windows; choose a `grid` of the combined encoder that divides the grids of all "
            "its encoders, or pool them by encoders.<name>.pool"
        )
    return rows // grid


def _concatenated(maps_bpd: Sequence[NDArray[Any]]) -> NDArray[Any]:
    return np.concatenate(maps_bpd, axis=2)


def _interleaved(maps_bpd: Sequence[NDArray[Any]]) -> NDArray[Any]:
    b, p, _ = maps_bpd[0].shape
    n, width = len(maps_bpd), max(map_bpd.shape[2] for map_bpd in maps_bpd)
    out_bpd = np.zeros((b, n * p, width), np.result_type(*maps_bpd))
    for i, map_bpd in enumerate(maps_bpd):
        out_bpd[:, i::n, : map_bpd.shape[2]] = map_bpd
    return out_bpd


def _covered(placing: dict[str, Any]) -> tuple[Fraction, str]:
    """What the patches cover: their side as a share of the input's, and the fit."""
    size, patch = placing["size"], placing["patch"]
    return Fraction(size // patch * patch, size), placing["fit"]


def _listed(placing: dict[str, Any]) -> str:
    keys = ("size", "patch", "fit", "pool")
    return ", ".join(str(placing[key]) for key in keys if key in placing)


def need(node: Node, shapes: Shapes) -> Need:
    """Disk: the features of all encoders once more."""
    shape = shapes.vision(node)
    images = shapes.images(one(many(node, "features")[0], "records"))
    if shape is None or images is None:
        return Need(disk=None)
    return Need(disk=formulas.feature_bytes(images.images, shape))
