"""Multinomial logistic regression: the linear probe of the metrics.

Legend: n image or patch, d width.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


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

    probe = make_pipeline(
        StandardScaler(), LogisticRegression(C=regularisation, max_iter=iterations)
    )
    with warnings.catch_warnings():
        # A probe that has not fully converged is a lower bound, which is what it reports.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return probe.fit(np.asarray(x_nd, dtype=np.float32), y_n)
