"""Semi-NMF: a dictionary whose activations are not negative, by multiplicative updates.

X ~ Z D with Z >= 0 and D of any sign (Ding, Li and Jordan, Convex and Semi-Nonnegative Matrix
Factorizations, 2010, section 3): in turn D is the least-squares solution, and Z is multiplied by
the square root of a ratio, which never raises the squared error. It starts at k-means clusters.
Patches are encoded by the same updates of Z with D fixed.

Shape legend: n patch, d channel, s latent.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

_RIDGE = 1e-6  # of D's least squares, relative to the mean of its diagonal
_SMALLEST = 1e-9
_CLUSTER_ITERATIONS = 20
# Of the activations that k-means starts from: a zero would stay zero.
_FLOOR = 0.2
_ROWS = 4096  # patches that are encoded at once


def fit_semi_nmf(x_nd: Floats, latents: int, iterations: int, seed: int) -> Floats:
    """Return the rows D [s, d]; of no more latents than there are patches."""
    from sklearn.cluster import KMeans

    latents = min(latents, len(x_nd))
    clusters = KMeans(latents, n_init=1, max_iter=_CLUSTER_ITERATIONS, random_state=seed)
    label_n = clusters.fit_predict(x_nd)
    z_ns = np.full((len(x_nd), latents), _FLOOR, dtype=np.float32)
    z_ns[np.arange(len(x_nd)), label_n] += 1
    row_sd = _least_squares(x_nd, z_ns)
    for _ in range(iterations):
        z_ns = _updated(z_ns, x_nd @ row_sd.T, row_sd @ row_sd.T)
        row_sd = _least_squares(x_nd, z_ns)
    return row_sd


def encode_semi_nmf(x_nd: Floats, row_sd: Floats, iterations: int) -> Floats:
    """Return the activations Z [n, s] of patches with the rows fixed; they start at those of the
    least squares, cut at zero."""
    gram_ss = row_sd @ row_sd.T
    ridge = _RIDGE * np.float32(np.trace(gram_ss) / len(gram_ss)) * np.eye(len(gram_ss))
    start_ds = np.linalg.solve((gram_ss + ridge).astype(np.float64), row_sd).T.astype(np.float32)
    parts = []
    for first in range(0, len(x_nd), _ROWS):
        part_nd = x_nd[first : first + _ROWS]
        z_ns = np.maximum(part_nd @ start_ds, np.float32(1e-3))
        projected_ns = part_nd @ row_sd.T
        for _ in range(iterations):
            z_ns = _updated(z_ns, projected_ns, gram_ss)
        parts.append(z_ns)
    return np.concatenate(parts)


def _updated(z_ns: Floats, projected_ns: Floats, gram_ss: Floats) -> Floats:
    """One update of Z, given X D^T [n, s] and D D^T [s, s]."""
    for_ns = np.maximum(projected_ns, 0) + z_ns @ np.maximum(-gram_ss, 0)
    against_ns = np.maximum(-projected_ns, 0) + z_ns @ np.maximum(gram_ss, 0)
    return np.asarray(z_ns * np.sqrt(for_ns / (against_ns + _SMALLEST)), dtype=np.float32)


def _least_squares(x_nd: Floats, z_ns: Floats) -> Floats:
    gram_ss = (z_ns.T @ z_ns).astype(np.float64)
    gram_ss[np.diag_indices_from(gram_ss)] += _RIDGE * np.trace(gram_ss) / len(gram_ss)
    return np.asarray(np.linalg.solve(gram_ss, z_ns.T @ x_nd), dtype=np.float32)
