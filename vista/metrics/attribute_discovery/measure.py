"""Which latents of a text encoder are proposed as attributes, and in which order.

Legend: n prompt, s latent.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from vista.metrics.selectivity import selectivity, varying, word_matrix


def ranked(
    written_ns: NDArray[np.float32], auroc_s: NDArray[np.float64], shares: tuple[float, float]
) -> NDArray[np.int64]:
    """Return the latents that can be proposed, by AUROC; of equal ones those of the larger variance
    of `written_ns` first.

    Args:
        written_ns: Activation of each latent on each prompt, times the norm of its decoder row.
        auroc_s: AUROC of each latent; NaN where it has no name.
        shares: Smallest and largest share of the prompts that a latent may fire on.
    """
    fit_s = varying(written_ns, shares)
    order = np.lexsort((-written_ns.var(axis=0), -auroc_s))
    return np.asarray(order[(fit_s & ~np.isnan(auroc_s))[order]])


def one_a_name(latents: NDArray[np.int64], names: Sequence[str | None], most: int) -> list[int]:
    """Return the first latent of each name, at most `most` of them."""
    first: dict[str, int] = {}
    for latent in latents.tolist():
        if (name := names[latent]) is not None:
            first.setdefault(name, latent)
    return list(first.values())[:most]


def name_aurocs(
    score_ns: NDArray[np.float32], words_n: Sequence[Collection[str]], names: Sequence[str | None]
) -> NDArray[np.float64]:
    """Return the AUROC of each latent for the prompts with its name, [s]; NaN without a name.

    Args:
        score_ns: Activation of each latent on each prompt.
        words_n: The words of each prompt.
        names: The name of each latent.
    """
    distinct = sorted({name for name in names if name is not None})
    place = {name: c for c, name in enumerate(distinct)}
    auroc_sc = selectivity(score_ns, word_matrix(words_n, distinct))
    return np.array(
        [np.nan if name is None else auroc_sc[s, place[name]] for s, name in enumerate(names)]
    )
