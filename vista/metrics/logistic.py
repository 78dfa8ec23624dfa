"""Multinomial logistic regression: the linear probe of the metrics.

Legend: n image or patch, d width.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

# Rows that are standardised by at once.
_ROWS = 4096


def fit_logistic(
    x_nd: NDArray[Any], y_n: NDArray[np.str_], *, regularisation: float, iterations: int
) -> Any:
    """Fit scikit-learn's classifier to features [n, d], standardised, and classes [n].

    `regularisation` is its C, `iterations` are of L-BFGS. Raises ValueError for fewer than two
    classes.
    """
    import warnings

    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    x_nd = np.asarray(x_nd, dtype=np.float32)
    scaler = StandardScaler()
    # All at once it would hold them in double precision.
    for start in range(0, len(x_nd), _ROWS):
        scaler.partial_fit(x_nd[start : start + _ROWS])
    model = LogisticRegression(C=regularisation, max_iter=iterations)
    with warnings.catch_warnings():
        # A probe that has not fully converged is a lower bound, which is what it reports.
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(scaler.transform(x_nd), y_n)
    return make_pipeline(scaler, model)
