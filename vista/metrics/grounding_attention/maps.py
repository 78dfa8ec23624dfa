"""Maps of attention over patches, scored against the patches of objects.

A reading is one map of a token: the mean over all heads, over the heads of one layer, or one head.

Suffixes: i pair of image and object, l layer, h head, r reading, p patch, b image.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vista.metrics.ranking import BoolArray, FloatArray


@dataclass(frozen=True)
class Readings:
    """The readings of a model: all heads, then the heads of each layer, then each head."""

    layers: int
    heads: int

    def __len__(self) -> int:
        return 1 + self.layers * (1 + self.heads)

    def of(self, weights_ilhp: NDArray[Any]) -> FloatArray:
        """Return the maps [i, r, p] of attention weights."""
        weights = np.asarray(weights_ilhp, dtype=np.float64)
        i, _, _, p = weights.shape
        layers_ilp = weights.mean(axis=2)
        everything_i1p = layers_ilp.mean(axis=1, keepdims=True)
        return np.concatenate([everything_i1p, layers_ilp, weights.reshape(i, -1, p)], axis=1)

    def means(self) -> dict[int | None, int]:
        """Return the reading of all heads (None) and of the heads of each layer, by layer."""
        return {None: 0} | {layer: 1 + layer for layer in range(self.layers)}

    def head(self, reading: int) -> tuple[int, int]:
        """Return layer and head of a reading that is a single head."""
        return divmod(reading - 1 - self.layers, self.heads)

    def best_head(self, score_r: FloatArray) -> int:
        """Return the reading that is the head with the largest score, the first of several."""
        first = 1 + self.layers
        return first + int(np.nan_to_num(score_r[first:], nan=-np.inf).argmax())


@dataclass(frozen=True)
class MapValues:
    """Scores of maps, each [i, r].

    Attributes:
        on_object: Share of the attention on patches that lies on the object's; of a map that is 0
            everywhere, the object's share of the patches.
        auroc: Area under the ROC curve of the map against the object's patches, ties half.
        pointing: Whether the largest value lies on the object; of several largest, their share.
        shuffled_on_object: The same share for the objects of all other images, mean.
        shuffled_auroc: The same area for the objects of all other images, mean.
        on_image: Attention on all patches, of 1.
        entropy: Entropy of the map over the patches, in nats, over log of their number: 1 where all
            are equal.
    """

    on_object: FloatArray
    auroc: FloatArray
    pointing: FloatArray
    shuffled_on_object: FloatArray
    shuffled_auroc: FloatArray
    on_image: FloatArray
    entropy: FloatArray


@dataclass(frozen=True)
class OtherRegions:
    """Objects of all other images, as sums that give the mean scores of a map against them.

    Attributes:
        share_ip: Mean over these objects of their indicator over patches.
        scaled_ip: Mean of the indicator over (its patches * the other patches).
        offset_i: Mean of (its patches + 1) / (2 * the other patches).
    """

    share_ip: FloatArray
    scaled_ip: FloatArray
    offset_i: FloatArray

    def of(self, rows: slice) -> OtherRegions:
        """Return those of some pairs."""
        return OtherRegions(self.share_ip[rows], self.scaled_ip[rows], self.offset_i[rows])


def other_regions(region_ip: BoolArray, image_i: NDArray[np.int64]) -> OtherRegions:
    """Return for each pair the objects of the other images; NaN where there is no other image."""
    region = region_ip.astype(np.float64)
    size_i1 = region.sum(axis=1, keepdims=True)
    rest_i1 = region.shape[1] - size_i1

    def others(values_ix: FloatArray) -> FloatArray:
        n_images = int(image_i.max(initial=-1)) + 1
        own_bx = np.zeros((n_images, values_ix.shape[1]))
        np.add.at(own_bx, image_i, values_ix)
        count_i = len(image_i) - np.bincount(image_i, minlength=n_images)[image_i]
        count_i1 = np.where(count_i > 0, count_i, np.nan)[:, None]
        return np.asarray((values_ix.sum(axis=0) - own_bx[image_i]) / count_i1)

    return OtherRegions(
        others(region),
        others(region / (size_i1 * rest_i1)),
        others((size_i1 + 1) / (2 * rest_i1))[:, 0],
    )


def map_values(maps_irp: FloatArray, region_ip: BoolArray, others: OtherRegions) -> MapValues:
    """Score maps against the object of each pair, and against those of other images.

    Args:
        maps_irp: Attention on each patch, 0 or more.
        region_ip: Patches of the object; some and not all.
        others: Objects of the other images.

    Raises:
        ValueError: An object has no patch or all.
    """
    from scipy.stats import rankdata

    size_i1 = region_ip.sum(axis=1, keepdims=True).astype(np.float64)
    n_patches = region_ip.shape[1]
    if (size_i1 == 0).any() or (size_i1 == n_patches).any():
        raise ValueError("a map needs patches of the object and patches beside it")
    region = region_ip.astype(np.float64)
    total_ir = maps_irp.sum(axis=2)
    flat_ir = total_ir <= 0
    share_irp = np.where(
        flat_ir[..., None], 1 / n_patches, maps_irp / np.where(flat_ir, 1.0, total_ir)[..., None]
    )
    rank_irp = rankdata(maps_irp, axis=2)
    largest_irp = (maps_irp == maps_irp.max(axis=2, keepdims=True)).astype(np.float64)
    logs_irp = np.log(np.where(share_irp > 0, share_irp, 1.0))
    rest_i1 = n_patches - size_i1
    # AUROC = (sum of the object's ranks - m (m + 1) / 2) / (m (n - m)), linear in the indicator.
    wins_ir = np.einsum("irp,ip->ir", rank_irp, region) - size_i1 * (size_i1 + 1) / 2
    return MapValues(
        on_object=np.einsum("irp,ip->ir", share_irp, region),
        auroc=wins_ir / (size_i1 * rest_i1),
        pointing=np.einsum("irp,ip->ir", largest_irp, region) / largest_irp.sum(axis=2),
        shuffled_on_object=np.einsum("irp,ip->ir", share_irp, others.share_ip),
        shuffled_auroc=np.einsum("irp,ip->ir", rank_irp, others.scaled_ip)
        - others.offset_i[:, None],
        on_image=total_ir,
        entropy=-(share_irp * logs_irp).sum(axis=2) / np.log(n_patches),
    )


def join_values(parts: list[MapValues]) -> MapValues:
    """Join the scores of some maps, in order; one part or more."""
    names = MapValues.__dataclass_fields__
    return MapValues(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))
