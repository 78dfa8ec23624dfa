"""Linear concept vectors: directions fitted to tell a concept's tokens from the others.

Difference of means, and the weights of an L2-regularised logistic regression: the supervised
rivals of a labelled latent (compare universal steering, arXiv 2502.03708).

Shape legend: n token, d width, c concept.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

BoolArray = NDArray[np.bool_]


def unit_rows(rows_cd: NDArray[Any]) -> NDArray[np.float32]:
    """Scale each row to length 1; rows of zeros stay."""
    length_c1 = np.linalg.norm(rows_cd.astype(np.float64), axis=1, keepdims=True)
    return (rows_cd / np.where(length_c1 > 0, length_c1, 1)).astype(np.float32)


def mean_difference(x_nd: NDArray[Any], positive_cn: BoolArray) -> NDArray[np.float32]:
    """Mean of the concept's tokens minus mean of the others, unit rows [c, d].

    Zero for a concept that all tokens have, or none.
    """
    rows = np.zeros((len(positive_cn), x_nd.shape[1]))
    for c, positive_n in enumerate(positive_cn):
        if positive_n.any() and not positive_n.all():
            difference_d = x_nd[positive_n].mean(0, np.float64) - x_nd[~positive_n].mean(
                0, np.float64
            )
            rows[c] = difference_d
    return unit_rows(rows)


def logistic(
    x_nd: NDArray[Any], positive_cn: BoolArray, regularisation: float
) -> NDArray[np.float32]:
    """Weights of one logistic regression a concept against all other tokens, unit rows [c, d].

    Classes are weighted to be of one size. Tokens are centred and divided by one number (their root
    mean square), so that `regularisation` means the same in streams of any scale. Zero for a
    concept that all tokens have, or none.
    """
    from sklearn.linear_model import LogisticRegression

    centred_nd = x_nd.astype(np.float64) - x_nd.mean(0, np.float64)
    centred_nd /= max(float(np.sqrt(np.square(centred_nd).mean())), 1e-12)
    rows = np.zeros((len(positive_cn), x_nd.shape[1]))
    for c, positive_n in enumerate(positive_cn):
        if positive_n.any() and not positive_n.all():
            model = LogisticRegression(
                C=1 / regularisation, class_weight="balanced", max_iter=500
            ).fit(centred_nd, positive_n)
            rows[c] = model.coef_[0]
    return unit_rows(rows)


def random_directions(n: int, d: int, seed: int) -> NDArray[np.float32]:
    """`n` independent directions, uniform on the sphere, unit rows [n, d]."""
    return unit_rows(np.random.default_rng(seed).standard_normal((n, d)))
