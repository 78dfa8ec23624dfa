"""A linear probe a class on all channels together: what no single direction can exceed by much.

Shape legend: n patch, d channel, c class.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_ITERATIONS = 200


def linear_scores(
    fit_nd: NDArray[Any], shown_nc: NDArray[np.bool_], held_nd: NDArray[Any], ridge: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Fit logistic regressions, one against the rest, and return the scores w x + b of the patches
    that they are fitted to and of held-out ones, [n, c] each.

    Features are standardised; `ridge` / 2 times the squared weights is added to the mean loss.
    """
    from scipy.optimize import minimize

    mean_d, deviation_d = fit_nd.mean(axis=0), fit_nd.std(axis=0)
    scale_d = np.where(deviation_d > 0, deviation_d, 1.0)
    x_nd = ((fit_nd - mean_d) / scale_d).astype(np.float32)
    truth_nc = shown_nc.astype(np.float32)
    shape = (x_nd.shape[1] + 1, shown_nc.shape[1])

    def loss(parameters: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        both_dc = parameters.reshape(shape)
        weight_dc, bias_c = both_dc[:-1], both_dc[-1]
        z_nc = x_nd @ weight_dc.astype(np.float32) + bias_c.astype(np.float32)
        total = float((np.logaddexp(0, z_nc) - truth_nc * z_nc).sum(dtype=np.float64)) / len(x_nd)
        error_nc = 0.5 * (1 + np.tanh(0.5 * z_nc)) - truth_nc
        gradient_dc = np.empty(shape)
        gradient_dc[:-1] = x_nd.T @ error_nc / len(x_nd) + ridge * weight_dc
        gradient_dc[-1] = error_nc.mean(axis=0)
        return total + 0.5 * ridge * float(np.square(weight_dc).sum()), gradient_dc.reshape(-1)

    options = {"maxiter": _ITERATIONS}
    found = minimize(
        loss, np.zeros(shape[0] * shape[1]), jac=True, method="L-BFGS-B", options=options
    )
    both_dc = found.x.reshape(shape)

    def scores(part_nd: NDArray[Any]) -> NDArray[np.float64]:
        standard_nd = (part_nd - mean_d) / scale_d
        return np.asarray(standard_nd @ both_dc[:-1] + both_dc[-1], dtype=np.float64)

    return scores(fit_nd), scores(held_nd)
