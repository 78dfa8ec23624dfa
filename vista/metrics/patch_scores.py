"""Scores of one activation map against the patches of an object, many maps at once.

AUROC and average precision equal scikit-learn's, ties included (a test compares them), and are
computed for all maps in a few array operations: a call of scikit-learn for each map costs about a
millisecond.

Suffixes: i maps, p and q patches, r permutations.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

BoolArray = NDArray[np.bool_]
FloatArray = NDArray[np.float64]

# Comparisons of patch with patch held in memory at once.
_BLOCK_CELLS = 2_000_000


@dataclass(frozen=True)
class MapScores:
    """Scores of each map, all [i].

    Attributes:
        auroc_i: Area under the ROC curve; .5 for a map without any difference.
        average_precision_i: Average precision.
        iou_active_i: IoU of the patches with activation > 0; 0 if there are none.
        iou_best_i: IoU at the best threshold above 0; 0 if no patch is active.
        average_precision_chance_i: Mean of average_precision when the map's patches are permuted.
            It is a little above the object's share of the patches, as the ranking is short.
        iou_active_chance_i: Mean of iou_active when the map's patches are permuted.
        iou_best_chance_i: Mean of iou_best when the map's patches are permuted.
    """

    auroc_i: FloatArray
    average_precision_i: FloatArray
    iou_active_i: FloatArray
    iou_best_i: FloatArray
    average_precision_chance_i: FloatArray
    iou_active_chance_i: FloatArray
    iou_best_chance_i: FloatArray

    @classmethod
    def empty(cls) -> MapScores:
        """Return the scores of no map."""
        return cls(*(np.zeros(0) for _ in fields(cls)))

    def of(self, maps_i: BoolArray) -> MapScores:
        """Return the scores of some maps."""
        return MapScores(*(getattr(self, field.name)[maps_i] for field in fields(self)))

    @classmethod
    def join(cls, parts: list[MapScores]) -> MapScores:
        """Join scores, in order."""
        return cls(
            *(
                np.concatenate([np.zeros(0), *(getattr(part, field.name) for part in parts)])
                for field in fields(cls)
            )
        )


def map_scores(
    activation_ip: NDArray[Any], truth_ip: BoolArray, permutations: int, seed: int
) -> MapScores:
    """Score activation maps against the object's patches.

    Args:
        activation_ip: Activations, 0 where the latent is silent.
        truth_ip: Patches of the object; some and not all in every map.
        permutations: Permutations of the patches for the chance levels of IoU.
        seed: Seed of the permutations.

    Raises:
        ValueError: Shapes differ, or a map is all object or has none.
    """
    if activation_ip.shape != truth_ip.shape:
        raise ValueError(f"shapes differ: {activation_ip.shape} and {truth_ip.shape}")
    if not truth_ip.any(axis=1).all() or truth_ip.all(axis=1).any():
        raise ValueError("a map needs patches of the object and patches beside it")
    n_maps, n_patches = activation_ip.shape
    block = max(1, _BLOCK_CELLS // n_patches**2)
    rng = np.random.default_rng(seed)
    parts = [
        _score_block(
            activation_ip[start : start + block].astype(np.float64),
            truth_ip[start : start + block],
            permutations,
            rng,
        )
        for start in range(0, n_maps, block)
    ]
    return MapScores.join(parts)


def _score_block(
    activation_ip: FloatArray, truth_ip: BoolArray, permutations: int, rng: np.random.Generator
) -> MapScores:
    positives_i = truth_ip.sum(axis=1).astype(np.float64)
    negatives_i = truth_ip.shape[1] - positives_i
    # Column 0 is the truth, the others are permutations of it: permuting the object's patches is
    # the same as permuting the map's. Sums of patches are exact in float32.
    drawn_irq = np.repeat(truth_ip[:, None, :], permutations, axis=1)
    drawn_irq = rng.permuted(drawn_irq, axis=2)
    truth_iqr = np.concatenate([truth_ip[:, None, :], drawn_irq], axis=1).transpose(0, 2, 1)
    truth_iqr = truth_iqr.astype(np.float32)
    # reached_ipq: patch q is kept when patch p's activation is the threshold.
    reached_ipq = (activation_ip[:, None, :] >= activation_ip[:, :, None]).astype(np.float32)
    kept_ip1 = reached_ipq.sum(axis=2, keepdims=True)
    hit_ipr = reached_ipq @ truth_iqr
    precision_ir = (hit_ipr / kept_ip1 * truth_iqr).sum(axis=1) / positives_i[:, None]
    # Of the negatives, those below a positive count whole, those at a tie half.
    kept_negatives_ip = (kept_ip1 - hit_ipr[..., :1])[..., 0]
    not_above_ip = (reached_ipq.transpose(0, 2, 1) @ (1 - truth_iqr[..., :1]))[..., 0]
    below_ip = negatives_i[:, None] - kept_negatives_ip
    wins_ip = (below_ip + not_above_ip) / 2
    auroc_i = (wins_ip * truth_ip).sum(axis=1) / (positives_i * negatives_i)
    active_ir, best_ir = _ious(hit_ipr, kept_ip1, positives_i, activation_ip > 0)
    return MapScores(
        auroc_i,
        *(_split(score_ir)[0] for score_ir in (precision_ir, active_ir, best_ir)),
        *(_split(score_ir)[1] for score_ir in (precision_ir, active_ir, best_ir)),
    )


def _split(score_ir: NDArray[Any]) -> tuple[FloatArray, FloatArray]:
    """Split scores into the true one and the mean over permutations."""
    score = score_ir.astype(np.float64)
    return score[:, 0], score[:, 1:].mean(axis=1)


def _ious(
    hit_ipr: NDArray[Any], kept_ip1: NDArray[Any], positives_i: FloatArray, active_ip: BoolArray
) -> tuple[FloatArray, FloatArray]:
    """IoU [i, r] of all active patches, and at the best threshold above 0; 0 for silent maps."""
    union_ipr = kept_ip1 + positives_i[:, None, None] - hit_ipr
    iou_ipr = np.where(active_ip[..., None], hit_ipr / union_ipr, 0.0)
    # The weakest active patch keeps exactly the active ones.
    widest_i = np.where(active_ip, kept_ip1[..., 0], -1.0).argmax(axis=1)
    return iou_ipr[np.arange(len(iou_ipr)), widest_i], iou_ipr.max(axis=1)
