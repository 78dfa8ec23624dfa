"""Stage: combine the features of several encoders, shard by shard (arXiv 2406.16860).

The features are not standardised.

Legend of shape suffixes: b image, p patch token, k token of a patch, d channel.
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
from vista.inputs.maps import read_frames
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

    concat: the channels of all encoders at each token. interleave: at each patch the tokens of the
    first encoder, then those of the second and so on (one each, but for video models); narrower
    ones are padded with zeros at the end, and the grid is wider. windows: at each place of a grid
    the channels of the patches of all encoders there, encoder after encoder, row after row of the
    window; geometry.json then has `windows`, the tokens of a window and their channels for each
    encoder.

    Raises UserError where the stores hold other images or another order of them, where their
    patches are not the same parts of an image, where concat meets several numbers of tokens a
    patch, or where a grid does not divide theirs.
    """
    parts = job.inputs.features
    readers = [FeatureReader(part.store("features.zarr")) for part in parts]
    places = [read_geometry(part) for part in parts]
    source = job.settings.encoder.source
    _refuse_other_patches(parts, readers, places, source.how)
    tokens, widths = [place["per_patch"] for place in places], [r.shape[2] for r in readers]
    rows, columns = _patches(readers[0], tokens[0])
    placing, d_vision = dict(places[0]), sum(widths)
    if source.how == "windows":
        assert source.grid is not None
        sides = [_window(*pair, source.grid) for pair in zip(parts, readers, strict=True)]
        rows = columns = source.grid
        windows = [(side**2, width) for side, width in zip(sides, widths, strict=True)]
        d_vision = sum(count * width for count, width in windows)
        placing |= {"pool": source.grid, "windows": windows}
    elif source.how == "interleave":
        d_vision = max(widths)
        placing["per_patch"] = sum(tokens)
    elif tokens[0] > 1 and all(read_frames(part) == tokens[0] for part in parts):
        placing["frames"] = tokens[0]
    writer = FeatureWriter(
        job.work / "features.zarr",
        readers[0].image_ids,
        grid=(rows, columns * placing["per_patch"]),
        d_vision=d_vision,
    )
    done = writer.done_shards()
    for shard in progress(range(writer.shards), desc="features", unit="shard"):
        if shard not in done:
            images = writer.shard_images(shard)
            maps = [reader.read(images) for reader in readers]
            if source.grid is not None:
                maps = [to_windows(map_bpd, source.grid) for map_bpd in maps]
            if source.how == "interleave":
                writer.write_shard(shard, _interleaved(maps, tokens))
            else:
                writer.write_shard(shard, np.concatenate(maps, axis=2))
    writer.close()
    text = json.dumps(placing, sort_keys=True) + "\n"
    (job.work / GEOMETRY).write_text(text, encoding="utf-8")


def _refuse_other_patches(
    parts: Sequence[Artifact],
    readers: Sequence[FeatureReader],
    places: Sequence[dict[str, Any]],
    how: str,
) -> None:
    """Refuse stores that cannot be combined with the first one. Raises UserError."""
    first, count = readers[0], places[0]["per_patch"]
    for part, reader, placing in zip(parts[1:], readers[1:], places[1:], strict=True):
        if first.image_ids != reader.image_ids:
            raise UserError(
                f"{parts[0].path} and {part.path} hold other images, or another order of them; run "
                "the workflow again so that both come from one data set"
            )
        shapes = [_patches(first, count), _patches(reader, placing["per_patch"])]
        same_grid = how == "windows" or shapes[0] == shapes[1]
        if not same_grid or _covered(places[0]) != _covered(placing):
            grids = " and ".join(f"{rows} x {columns}" for rows, columns in shapes)
            raise UserError(
                f"a combined encoder needs encoders whose patches are the same parts of an image; "
                f"the grids are {grids} (size, patch, fit, and pool if any: {_listed(places[0])} "
                f"and {_listed(placing)}): choose others, or pool all to one grid by "
                "encoders.<name>.pool"
            )
        if how == "concat" and count != placing["per_patch"]:
            raise UserError(
                f"how: concat needs encoders with as many tokens a patch, not {count} and "
                f"{placing['per_patch']}; set how: interleave, or the same number of frames"
            )


def _patches(reader: FeatureReader, per_patch: int) -> tuple[int, int]:
    """Return rows and columns of patches."""
    return reader.grid[0], reader.grid[1] // per_patch


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


def _interleaved(maps_bpd: Sequence[NDArray[Any]], tokens: Sequence[int]) -> NDArray[Any]:
    """All features [b, p * k, d], where `tokens` are those of a patch in each, of which k is the
    sum."""
    width = max(map_bpd.shape[2] for map_bpd in maps_bpd)
    b, patches = len(maps_bpd[0]), maps_bpd[0].shape[1] // tokens[0]
    out_bpkd = np.zeros((b, patches, sum(tokens), width), np.result_type(*maps_bpd))
    start = 0
    for map_bpd, count in zip(maps_bpd, tokens, strict=True):
        split_bpkd = map_bpd.reshape(b, patches, count, -1)
        out_bpkd[:, :, start : start + count, : map_bpd.shape[2]] = split_bpkd
        start += count
    return out_bpkd.reshape(b, -1, width)


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
