"""Stage: combine the features of two encoders, shard by shard (arXiv 2406.16860).

The features are not standardised.

Legend of shape suffixes: b image, p patch token, d channel.
"""

from __future__ import annotations

import json
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

    concat: the channels of both encoders at each patch. interleave: two tokens a patch, that of the
    first encoder first; the narrower ones are padded with zeros at the end, and the grid is twice
    as wide.

    Raises UserError where the stores hold other images or another order of them, or where their
    patches are not the same parts of an image.
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
    if first.grid != second.grid or _patches(places[0]) != _patches(places[1]):
        grids = " and ".join(f"{rows} x {columns}" for rows, columns in (first.grid, second.grid))
        raise UserError(
            f"a combined encoder needs two whose patches are the same parts of an image; the grids "
            f"are {grids} (size, patch, fit, and pool if any: {_listed(places[0])} and "
            f"{_listed(places[1])}): choose another pair, or pool both to one grid by "
            "encoders.<name>.pool"
        )
    interleaved = job.settings.encoder.source.how == "interleave"
    widths = [reader.shape[2] for reader in readers]
    rows, columns = first.grid
    writer = FeatureWriter(
        job.work / "features.zarr",
        first.image_ids,
        grid=(rows, columns * (1 + interleaved)),
        d_vision=max(widths) if interleaved else sum(widths),
    )
    combined = _interleaved if interleaved else _concatenated
    done = writer.done_shards()
    for shard in progress(range(writer.shards), desc="features", unit="shard"):
        if shard not in done:
            images = writer.shard_images(shard)
            writer.write_shard(shard, combined(*(reader.read(images) for reader in readers)))
    writer.close()
    placing = places[0] | {"per_patch": 1 + interleaved}
    text = json.dumps(placing, sort_keys=True) + "\n"
    (job.work / GEOMETRY).write_text(text, encoding="utf-8")


def _concatenated(a_bpd: NDArray[Any], b_bpd: NDArray[Any]) -> NDArray[Any]:
    return np.concatenate([a_bpd, b_bpd], axis=2)


def _interleaved(a_bpd: NDArray[Any], b_bpd: NDArray[Any]) -> NDArray[Any]:
    b, p, _ = a_bpd.shape
    width = max(a_bpd.shape[2], b_bpd.shape[2])
    out_bpd = np.zeros((b, 2 * p, width), np.result_type(a_bpd, b_bpd))
    out_bpd[:, 0::2, : a_bpd.shape[2]] = a_bpd
    out_bpd[:, 1::2, : b_bpd.shape[2]] = b_bpd
    return out_bpd


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
