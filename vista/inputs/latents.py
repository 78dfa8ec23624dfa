"""What metrics over latents read: the store, its images' records, the labels of each layer."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vista.config.metrics import MaskBounds
from vista.data.geometry import ImageGeometry
from vista.data.records import Record, decode_mask, read_records
from vista.engine.artifacts import Artifact
from vista.errors import UserError
from vista.metrics.ranking import (
    LatentMask,
    Ranked,
    activation_sums,
    join_ranked,
    mask_latents,
    rank_under_masks,
)
from vista.sae.label_table import FILE, LatentLabels, read_labels
from vista.store.latents import LatentReader

BoolArray = NDArray[np.bool_]
# Written beside the store of features: {"size": px, "patch": px, "fit": "pad" | "crop"}, and
# "per_patch" where a patch has several tokens (of several encoders, or of frames of a clip),
# "frames" where these are frames (`vista.inputs.maps`), "windows" where a place holds several
# patches.
GEOMETRY = "geometry.json"


def read_latents(latents: Artifact) -> LatentReader:
    """Open the store of an artifact of latents."""
    return LatentReader(latents.store("latents.zarr"))


def read_image_records(records: Artifact, store: LatentReader) -> list[Record]:
    """Return the record of each image of a store of latents, in the store's order.

    Raises:
        UserError: An image of the store has no record.
    """
    table = read_records(records.file("records.parquet"))
    return table.select(table.rows_by_id(store.image_ids))


def read_layer_labels(
    artifacts: Sequence[Artifact], latents: Artifact, store: LatentReader
) -> dict[int, LatentLabels]:
    """Return the labels of every layer of `store`, the store of `latents`.

    Raises:
        UserError: A layer has no labels or two, or labels are of another SAE.
    """
    labels: dict[int, LatentLabels] = {}
    saes = latents.inputs.get("saes", [])
    for artifact in artifacts:
        path = artifact.file(FILE)
        if artifact.inputs["sae"] not in saes:
            raise UserError(
                f"{path} labels another SAE than the latents were read with; labels hold for one "
                "dictionary only: run the workflow again"
            )
        table = read_labels(path)
        if table.layer in labels:
            raise UserError(f"{path} labels layer {table.layer}, which has labels already")
        size = store.layers.get(table.layer)
        if size is not None and size != len(table.label_s):
            raise UserError(
                f"{path} labels {len(table.label_s)} latents; the SAE of layer {table.layer} "
                f"behind the latents has {size}: label that SAE"
            )
        labels[table.layer] = table
    missing = sorted(set(store.layers) - set(labels))
    if missing:
        raise UserError(f"layer {missing[0]} has latents but no labels; add label_latents for it")
    return {layer: labels[layer] for layer in sorted(store.layers)}


@dataclass(frozen=True)
class RankedLayer:
    """The strongest latents of every image of a store, on one layer.

    Attributes:
        ranked: Rankings by the bounds of the masks.
        masks: The masks by their bounds.
        fires_s: Which latents fire at a visual token of an image of the store.
        activation_bm: Summed activation of each image's visual tokens: of all latents, then of
            those that the mask of the first bounds hides as too frequent, as too dense, as either,
            then of those without a label.
    """

    ranked: dict[MaskBounds, Ranked]
    masks: dict[MaskBounds, LatentMask]
    fires_s: BoolArray
    activation_bm: NDArray[np.float64]


def rank_layer(
    latents: LatentReader,
    layer: int,
    labels: LatentLabels,
    bounds: Sequence[MaskBounds],
    n_top: int,
    mask_images: LatentReader | None = None,
) -> RankedLayer:
    """Mask the latents of one layer and rank the rest in every image of the store.

    Args:
        latents: Latents of the images.
        layer: Layer of the store.
        labels: Labels of its latents; a latent without one is not ranked.
        bounds: Bounds of the masks, a ranking for each; one or more.
        n_top: Latents of an image that are ranked.
        mask_images: Latents of the images that the frequency mask's shares are estimated on; None:
            the store's own.
    """
    share_s = (mask_images or latents).image_frequency(layer)
    masks = {
        pair: mask_latents(share_s, labels.density_s, *pair, labels.label_s)
        for pair in dict.fromkeys(bounds)
    }
    eligible_ms = np.stack([mask.eligible_s for mask in masks.values()])
    first = masks[bounds[0]]
    hidden = (first.frequent_s, first.dense_s, first.masked_s, first.unlabelled_s)
    counted_ms = np.stack([np.ones_like(first.dense_s), *hidden])
    parts: list[list[Ranked]] = []
    sums = [np.zeros((0, len(counted_ms)))]
    for images in latents.slices():
        tokens = latents.tokens(layer, "image", images)
        slots = (tokens.index, tokens.value, np.where(tokens.valid, tokens.nnz, 0))
        parts.append(rank_under_masks(*slots, eligible_ms, n_top))
        sums.append(activation_sums(*slots, counted_ms))
    return RankedLayer(
        {pair: join_ranked([part[m] for part in parts]) for m, pair in enumerate(masks)},
        masks,
        latents.image_frequency(layer) > 0,
        np.concatenate(sums),
    )


def read_geometry(features: Artifact) -> dict[str, Any]:
    """Return how images lie on the patch grid behind some features: size, patch and fit, and pool
    where patches were pooled.

    They are the arguments that `ImageGeometry` takes beside an image's width and height.

    Raises:
        UserError: The features do not say.
    """
    path = features.file(GEOMETRY)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        placing = {key: content[key] for key in ("size", "patch", "fit")}
        placing["per_patch"] = content.get("per_patch", 1)
        return placing | ({"pool": content["pool"]} if "pool" in content else {})
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path} does not give size, patch and fit; rebuild the features"
        ) from error


def class_patches(
    record: Record, geometry: ImageGeometry, mask_cover: float
) -> Iterator[tuple[str, BoolArray, BoolArray | None]]:
    """Yield each class of an image with the patches of its boxes and of its masks.

    Boxes: patches that touch any of the class's boxes. Masks: patches of which the union of its
    masks covers at least `mask_cover`; None unless each object of the class has a mask. A crowd
    region is none of its objects: much of what it covers is not the class. A class that is there
    as a crowd alone is left out.
    """
    objects = [item for item in record.objects if not item.crowd]
    for category in dict.fromkeys(item.category for item in objects):
        box_p = np.zeros(geometry.n_patches, dtype=bool)
        for item in objects:
            if item.category == category:
                box_p |= geometry.box_to_patches(item.box)
        mask_hw = class_mask(record, category)
        mask_p = None if mask_hw is None else geometry.mask_to_patches(mask_hw) >= mask_cover
        yield category, box_p, mask_p


def class_boxes(record: Record, geometry: ImageGeometry, category: str) -> BoolArray:
    """Return the patches that each box of a class touches [boxes, p], crowd regions apart."""
    boxes = [
        geometry.box_to_patches(item.box)
        for item in record.objects
        if item.category == category and not item.crowd
    ]
    return np.array(boxes, dtype=bool).reshape(len(boxes), geometry.n_patches)


def class_mask(record: Record, category: str) -> BoolArray | None:
    """Return the union of the masks [h, w] of a class, crowd regions apart.

    None unless each of its objects has one.
    """
    mask_hw = np.zeros((record.height, record.width), dtype=bool)
    for item in record.objects:
        if item.category == category and not item.crowd:
            if item.rle is None:
                return None
            mask_hw |= decode_mask(item.rle)
    return mask_hw
