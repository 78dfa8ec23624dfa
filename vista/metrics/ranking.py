"""The strongest latents of an image: the two masks and the ranking of the matching rate.

By the VISTA paper (arXiv 2605.24946) and its authors' program: leave out latents that fire in too
many images, sort the (token, latent) pairs of an image by activation, keep the first few distinct
latents that have a label and whose label is not too dense in text.

Suffixes: b images, t tokens, k slots of a token, s latents, n ranked latents of an image, m masks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

BoolArray = NDArray[np.bool_]
IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]

# A share such as 20 / 400 passes a limit of .05 whatever its last bits are; densities are float32.
_TOLERANCE = 1e-8


def firing(
    index_btk: NDArray[Any], value_btk: NDArray[Any], nnz_bt: NDArray[Any], n_latents: int
) -> BoolArray:
    """Return which slots hold a latent that fires, [b, t, k]: slots in use with a value above 0.

    A slot beyond a token's `nnz` is padding: its index has no meaning.

    Raises:
        ValueError: Shapes differ, a token claims more latents than it has slots, or an index does
            not exist in the dictionary (latents of another SAE).
    """
    if index_btk.shape != value_btk.shape or index_btk.shape[:2] != nnz_bt.shape:
        raise ValueError(f"shapes differ: {index_btk.shape}, {value_btk.shape}, {nnz_bt.shape}")
    slots = index_btk.shape[2]
    if nnz_bt.size and int(nnz_bt.max()) > slots:
        raise ValueError(f"a token has {int(nnz_bt.max())} active latents in {slots} slots")
    used_btk = (np.arange(slots) < nnz_bt[..., None]) & (value_btk > 0)
    if used_btk.any() and int(index_btk[used_btk].max()) >= n_latents:
        raise ValueError(
            f"latent {int(index_btk[used_btk].max())} fires in a dictionary of {n_latents}"
        )
    return used_btk


@dataclass(frozen=True)
class LatentMask:
    """Which latents of one SAE may not be ranked, and why; one can be several of these.

    Attributes:
        frequent_s: Latents that the frequency mask hides.
        dense_s: Latents that the density mask hides.
        unlabelled_s: Latents without a label.
    """

    frequent_s: BoolArray
    dense_s: BoolArray
    unlabelled_s: BoolArray

    @property
    def masked_s(self) -> BoolArray:
        """Latents that a mask hides."""
        return self.frequent_s | self.dense_s

    @property
    def eligible_s(self) -> BoolArray:
        """Latents that may be ranked: they pass both masks and have a label."""
        return ~(self.masked_s | self.unlabelled_s)


def mask_latents(
    image_share_s: NDArray[Any],
    density_s: NDArray[Any],
    max_image_share: float,
    max_label_density: float,
    labels: Sequence[str | None] | None = None,
) -> LatentMask:
    """Apply both masks.

    Args:
        image_share_s: Share of the images in which each latent fires.
        density_s: Share of text tokens on which each latent fires; NaN counts as too dense: a
            latent that never fired on text has no reliable label.
        max_image_share: Latents active in a larger share of the images are masked (published .05).
        max_label_density: Latents with a larger density are masked (published .005).
        labels: Label of each latent, None or blank where it has none; None: all have one.

    Raises:
        ValueError: The densities or labels are those of a dictionary of another size.
    """
    if image_share_s.shape != density_s.shape:
        raise ValueError(
            f"{len(density_s)} densities for a dictionary of {len(image_share_s)} latents"
        )
    if labels is not None and len(labels) != len(density_s):
        raise ValueError(f"{len(labels)} labels for a dictionary of {len(density_s)} latents")
    unlabelled_s = np.zeros(len(density_s), dtype=bool)
    if labels is not None:
        unlabelled_s = np.array([not (label and label.strip()) for label in labels], dtype=bool)
    return LatentMask(
        np.asarray(image_share_s, dtype=np.float64) > max_image_share + _TOLERANCE,
        ~(np.asarray(density_s, dtype=np.float64) <= max_label_density + _TOLERANCE),
        unlabelled_s,
    )


@dataclass(frozen=True)
class Ranked:
    """The strongest distinct latents of each image, strongest first; -1 and 0 where none is left.

    Attributes:
        latent_bn: Number of the latent, or -1.
        token_bn: Token where it fires most (the first such token), or -1.
        value_bn: Its activation there.
    """

    latent_bn: IntArray
    token_bn: IntArray
    value_bn: FloatArray

    def __len__(self) -> int:
        return len(self.latent_bn)

    def of(self, rows: IntArray) -> Ranked:
        """Return the rankings of some images."""
        return Ranked(self.latent_bn[rows], self.token_bn[rows], self.value_bn[rows])


def rank_latents(
    index_btk: NDArray[Any],
    value_btk: NDArray[Any],
    nnz_bt: NDArray[Any],
    eligible_s: BoolArray,
    n_top: int,
) -> Ranked:
    """Return the `n_top` distinct eligible latents of each image with the largest activations.

    Equal activations are ranked by the number of the latent, then by that of the token, so that
    the order does not depend on how slots were filled.
    """
    return rank_under_masks(index_btk, value_btk, nnz_bt, eligible_s[None], n_top)[0]


def rank_under_masks(
    index_btk: NDArray[Any],
    value_btk: NDArray[Any],
    nnz_bt: NDArray[Any],
    eligible_ms: BoolArray,
    n_top: int,
) -> list[Ranked]:
    """Return the ranking of `rank_latents` under each of several masks; images are sorted once."""
    used_btk = firing(index_btk, value_btk, nnz_bt, eligible_ms.shape[1])
    n_images, n_masks = len(index_btk), len(eligible_ms)
    any_s = np.asarray(eligible_ms.any(axis=0))
    latent_mbn = np.full((n_masks, n_images, n_top), -1, dtype=np.int64)
    token_mbn = np.full((n_masks, n_images, n_top), -1, dtype=np.int64)
    value_mbn = np.zeros((n_masks, n_images, n_top))
    for b in range(n_images):
        token, slot = np.nonzero(used_btk[b])
        latent = index_btk[b, token, slot].astype(np.int64)
        keep = any_s[latent]
        token, slot, latent = token[keep], slot[keep], latent[keep]
        value = value_btk[b, token, slot].astype(np.float64)
        # Not a sort of all pairs: without masks an image can have a million.
        strongest_s = np.zeros(len(any_s))
        np.maximum.at(strongest_s, latent, value)
        is_strongest = value == strongest_s[latent]
        token_s = np.full(len(any_s), index_btk.shape[1])
        np.minimum.at(token_s, latent[is_strongest], token[is_strongest])
        fires = np.flatnonzero(strongest_s)
        distinct = fires[np.argsort(-strongest_s[fires], kind="stable")]
        for m in range(n_masks):
            best = distinct[eligible_ms[m, distinct]][:n_top]
            latent_mbn[m, b, : len(best)] = best
            token_mbn[m, b, : len(best)] = token_s[best]
            value_mbn[m, b, : len(best)] = strongest_s[best]
    return [Ranked(*arrays) for arrays in zip(latent_mbn, token_mbn, value_mbn, strict=True)]


def activation_sums(
    index_btk: NDArray[Any],
    value_btk: NDArray[Any],
    nnz_bt: NDArray[Any],
    chosen_ms: BoolArray,
) -> FloatArray:
    """Return the summed activation of the chosen latents over each image's tokens, [b, m]."""
    n_latents = chosen_ms.shape[1]
    used_btk = firing(index_btk, value_btk, nnz_bt, n_latents)
    sums_bm = np.zeros((len(index_btk), len(chosen_ms)))
    for b, used_tk in enumerate(used_btk):
        value_n = value_btk[b][used_tk].astype(np.float64)
        sums_bm[b] = chosen_ms @ np.bincount(index_btk[b][used_tk], value_n, minlength=n_latents)
    return sums_bm


def join_ranked(parts: list[Ranked]) -> Ranked:
    """Join the rankings of consecutive images, as they come from a store read in pieces."""
    return Ranked(
        np.concatenate([part.latent_bn for part in parts]),
        np.concatenate([part.token_bn for part in parts]),
        np.concatenate([part.value_bn for part in parts]),
    )
