"""Stage: combine the features of two encoders, shard by shard (arXiv 2406.16860).

The features are not standardised.

Legend of shape suffixes: b image, p patch token, k token of a patch, d channel.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
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
    how: Literal["concat", "interleave"]


class CombinedFeatures(Settings):
    """Settings of the combined encoder."""

    source: Combination


class CombineFeaturesOrder(Settings):
    """The combined encoder."""

    encoder: CombinedFeatures


@dataclass(frozen=True)
class Inputs:
    """The features of the two encoders."""

    features: list[Artifact]


@stage(CombineFeaturesOrder, Inputs)
def run(job: StageJob[CombineFeaturesOrder, Inputs]) -> None:
    """Read two stores of features; write features.zarr and geometry.json.

    concat: the channels of both encoders at each token. interleave: at each patch the tokens of the
    first encoder, then those of the second (one each, but for video models); the narrower ones are
    padded with zeros at the end, and the grid is wider.

    Raises UserError where the stores hold other images or another order of them, where their
    patches are not the same parts of an image, or where concat meets two numbers of tokens a patch.
    """
    parts = job.inputs.features
    readers = [FeatureReader(part.store("features.zarr")) for part in parts]
    first, second = readers
    if first.image_ids != second.image_ids:
        raise UserError(
            f"{parts[0].path} and {parts[1].path} hold other images, or another order of them; run "
            "the workflow again so that both come from one data set"
        )
    places = [read_geometry(part) for part in parts]
    tokens = [place["per_patch"] for place in places]
    shapes = [
        (reader.grid[0], reader.grid[1] // count)
        for reader, count in zip(readers, tokens, strict=True)
    ]
    if shapes[0] != shapes[1] or _patches(places[0]) != _patches(places[1]):
        grids = " and ".join(f"{rows} x {columns}" for rows, columns in shapes)
        raise UserError(
            f"a combined encoder needs two whose patches are the same parts of an image; the grids "
            f"are {grids} (size, patch, fit, and pool if any: {_listed(places[0])} and "
            f"{_listed(places[1])}): choose another pair, or pool both to one grid by "
            "encoders.<name>.pool"
        )
    interleaved = job.settings.encoder.source.how == "interleave"
    if not interleaved and tokens[0] != tokens[1]:
        raise UserError(
            f"how: concat needs two encoders with as many tokens a patch, not {tokens[0]} and "
            f"{tokens[1]}; set how: interleave, or the same number of frames"
        )
    widths = [reader.shape[2] for reader in readers]
    per_patch = sum(tokens) if interleaved else tokens[0]
    rows, columns = shapes[0]
    writer = FeatureWriter(
        job.work / "features.zarr",
        first.image_ids,
        grid=(rows, columns * per_patch),
        d_vision=max(widths) if interleaved else sum(widths),
    )
    combined = partial(_interleaved, tokens) if interleaved else _concatenated
    done = writer.done_shards()
    for shard in progress(range(writer.shards), desc="features", unit="shard"):
        if shard not in done:
            images = writer.shard_images(shard)
            writer.write_shard(shard, combined(*(reader.read(images) for reader in readers)))
    writer.close()
    placing = places[0] | {"per_patch": per_patch}
    text = json.dumps(placing, sort_keys=True) + "\n"
    (job.work / GEOMETRY).write_text(text, encoding="utf-8")


def _concatenated(a_bpd: NDArray[Any], b_bpd: NDArray[Any]) -> NDArray[Any]:
    return np.concatenate([a_bpd, b_bpd], axis=2)


def _interleaved(tokens: Sequence[int], a_bpd: NDArray[Any], b_bpd: NDArray[Any]) -> NDArray[Any]:
    """Both features [b, p * (i + j), d], where `tokens` are those of a patch in each, i and j."""
    images, width = len(a_bpd), max(a_bpd.shape[2], b_bpd.shape[2])
    dtype = np.result_type(a_bpd, b_bpd)
    out_bpkd = np.zeros((images, a_bpd.shape[1] // tokens[0], sum(tokens), width), dtype)
    for x_bpd, first, count in zip((a_bpd, b_bpd), (0, tokens[0]), tokens, strict=True):
        x_bpkd = x_bpd.reshape(*out_bpkd.shape[:2], count, -1)
        out_bpkd[:, :, first : first + count, : x_bpd.shape[2]] = x_bpkd
    return out_bpkd.reshape(images, -1, width)


def _patches(placing: dict[str, Any]) -> tuple[Fraction, str]:
    """Where the patches lie: the side of one as a share of the input's side, and the fit."""
    size, patch = placing["size"], placing["patch"]
    cells = placing.get("pool", size // patch)
    return Fraction(size // patch * patch, size * cells), placing["fit"]


def _listed(placing: dict[str, Any]) -> str:
    keys = ("size", "patch", "fit", "pool")
    return ", ".join(str(placing[key]) for key in keys if key in placing)


def need(node: Node, shapes: Shapes) -> Need:
    """Disk: the features of both encoders once more."""
    shape = shapes.vision(node)
    images = shapes.images(one(many(node, "features")[0], "records"))
    if shape is None or images is None:
        return Need(disk=None)
    return Need(disk=formulas.feature_bytes(images.images, shape))
