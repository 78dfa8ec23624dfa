"""The strongest latents of each patch.

Suffixes: b images, t tokens, j slots of a token, s latents, k strongest latents.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vista.metrics.ranking import BoolArray, firing


def strongest_latents(
    index_btj: NDArray[Any],
    value_btj: NDArray[Any],
    nnz_bt: NDArray[Any],
    eligible_s: BoolArray,
    k: int,
) -> NDArray[np.int32]:
    """Return the k eligible latents with the largest activations at each token, [b, t, k]; -1 where
    fewer fire. Of equal activations the latent with the lower number comes first.

    Raises:
        ValueError: As `vista.metrics.ranking.firing`.
    """
    used_btj = firing(index_btj, value_btj, nnz_bt, len(eligible_s))
    index_btj = np.where(used_btj, index_btj, 0).astype(np.int32)
    used_btj &= eligible_s[index_btj]
    value_btj = np.where(used_btj, value_btj.astype(np.float64), -np.inf)
    order_btk = np.lexsort((index_btj, -value_btj), axis=-1)[..., :k]
    latent_btk = np.where(
        np.take_along_axis(used_btj, order_btk, axis=-1),
        np.take_along_axis(index_btj, order_btk, axis=-1),
        -1,
    )
    missing = k - latent_btk.shape[-1]
    return np.pad(latent_btk, ((0, 0), (0, 0), (0, missing)), constant_values=-1).astype(np.int32)
