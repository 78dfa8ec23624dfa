"""Latents as detectors of words: how well they separate the items that have a word.

An item is an image or a prompt; its words are those of its captions, or its own.

Legend: n item, s latent, c concept, w word.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray


def selectivity(
    score_ns: NDArray[np.float32], positive_nc: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Return the AUROC of each latent's score for each concept, [s, c]; ties count half, NaN where
    all items or none are positive."""
    from scipy.stats import rankdata

    positive = positive_nc.astype(np.float64)
    count_c = positive.sum(axis=0)
    rank_ns = rankdata(score_ns, axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        won_sc = rank_ns.T @ positive - count_c * (count_c + 1) / 2
        return np.asarray(won_sc / (count_c * (len(positive) - count_c)))


def word_matrix(words_n: Sequence[Collection[str]], names: Sequence[str]) -> NDArray[np.bool_]:
    """Return whether an item has each name [n, w]; it has a name if it has all words of it.

    Args:
        words_n: The words of each item.
        names: One word or several, divided by spaces.
    """
    parts = sorted({part for name in names for part in name.split()})
    place = {part: w for w, part in enumerate(parts)}
    part_nw = np.zeros((len(words_n), len(place)), dtype=bool)
    for n, words in enumerate(words_n):
        part_nw[n, [place[word] for word in words if word in place]] = True
    name_nw = np.zeros((len(words_n), len(names)), dtype=bool)
    for w, name in enumerate(names):
        name_nw[:, w] = part_nw[:, [place[part] for part in name.split()]].all(axis=1)
    return name_nw


def varying(score_ns: NDArray[np.float32], shares: tuple[float, float]) -> NDArray[np.bool_]:
    """Return which latents fire on a share of the items between `shares`, [s]."""
    share_s = (score_ns > 0).mean(axis=0)
    return np.asarray((share_s >= shares[0]) & (share_s <= shares[1]))


def most_varying(
    score_ns: NDArray[np.float32], shares: tuple[float, float], min_items: int, most: int
) -> NDArray[np.int64]:
    """Return at most `most` latents of the largest variance over items, out of those that fire on a
    share of the items between `shares` and on `min_items` or more."""
    fit_s = varying(score_ns, shares) & ((score_ns > 0).sum(axis=0) >= min_items)
    order = np.argsort(-score_ns.var(axis=0), kind="stable")
    return np.asarray(order[fit_s[order]][:most])
