"""Linear probe: how well a linear classifier tells the class of the object at a patch.

It bounds a linear projector: a noun that no linear map finds in a patch token cannot reach the
language model.

Suffixes: n patch, d width of the features, b image.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from vista.metrics.figure import Figure
from vista.metrics.logistic import fit_logistic
from vista.metrics.rates import rate_interval
from vista.metrics.result import Estimate, MetricResult, estimate


class ProbeResult(MetricResult):
    """Accuracy of a linear probe on the patches that an object covers."""

    patch_accuracy: Estimate = Field(
        description="Share of held-out object patches whose class the probe names; chance: always "
        "the class that is most frequent in fitting. n is the number of held-out patches."
    )
    n_fitted: int = Field(description="Patches that the probe was fitted on.")
    n_classes: int = Field(description="Classes among them.")

    def figures(self) -> list[Figure]:
        """Return the accuracy."""
        return [self.patch_accuracy.figure("patch_accuracy", token_kind="image")]


def linear_probe(
    fit: tuple[NDArray[Any], NDArray[np.str_]],
    held_out: tuple[NDArray[Any], NDArray[np.str_], NDArray[np.int64]],
    *,
    regularisation: float,
    iterations: int,
    level: float,
) -> ProbeResult:
    """Fit a multinomial logistic regression on standardised features and measure its accuracy.

    Args:
        fit: Features [n, d] and classes [n] to fit on.
        held_out: Features [n, d], classes [n] and the image [n] of each patch.
        regularisation: scikit-learn's C.
        iterations: Iterations of the solver (L-BFGS).
        level: Coverage of the interval over images.

    Raises:
        ValueError: There is no patch to fit on or to measure on.
    """
    x_nd, y_n = fit
    test_nd, truth_n, image_n = held_out
    if not len(y_n) or not len(truth_n):
        raise ValueError("a probe needs patches to fit on and patches to judge on")
    names, counts = np.unique(y_n, return_counts=True)
    if len(names) == 1:
        predicted_n = np.full(len(truth_n), names[0])
    else:
        probe = fit_logistic(x_nd, y_n, regularisation=regularisation, iterations=iterations)
        predicted_n = probe.predict(test_nd.astype(np.float32))
    _, place_n = np.unique(image_n, return_inverse=True)
    correct_b = np.bincount(place_n, weights=predicted_n == truth_n)
    patches_b = np.bincount(place_n).astype(np.float64)
    chance = float(np.mean(truth_n == names[counts.argmax()]))
    interval = rate_interval(correct_b, patches_b, level)
    return ProbeResult(
        patch_accuracy=estimate(interval, len(truth_n), chance),
        n_fitted=len(y_n),
        n_classes=len(names),
    )
