"""Attribute probes: which value of an attribute an image shows, by the features of an encoder.

An image's vector holds the means of its patch features over the quarters, which tell places, and
their maximum. Legend: n image, p patch, r and c rows and columns of patches, d channel.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vista.errors import UserError
from vista.metrics.logistic import fit_logistic

Said = dict[str, NDArray[np.str_]]


def pooled(features_npd: NDArray[Any], grid: tuple[int, int]) -> NDArray[np.float32]:
    """Means over the quarters of the grid (rows, columns) and maximum over all, [n, 5 d]; of a
    class token, which has no quarters, itself twice."""
    x_npd = np.asarray(features_npd, dtype=np.float32)
    x_nrcd = x_npd.reshape(len(x_npd), *grid, -1)
    quarters = [
        part.mean(axis=(1, 2))
        for half in np.array_split(x_nrcd, 2, axis=1)
        for part in np.array_split(half, 2, axis=2)
        if part.size
    ]
    return np.concatenate([*quarters, x_npd.max(axis=1)], axis=1)


class AttributeProbes:
    """A logistic regression on standardised vectors for each attribute.

    Raises:
        UserError: an attribute has fewer than two values among the images.
    """

    def __init__(
        self,
        vectors_nd: NDArray[np.float32],
        values: Mapping[str, Sequence[str | None]],
        regularisation: float,
        iterations: int,
    ) -> None:
        self._probes: dict[str, Any] = {}
        for name, captions in values.items():
            known = [i for i, value in enumerate(captions) if value is not None]
            labels = np.array([captions[i] for i in known])
            if len(set(labels)) < 2:
                raise UserError(
                    f"probing.diffusion.attributes.{name}: the captions of the images name fewer "
                    "than two of its values; correct the words, or leave the attribute out"
                )
            self._probes[name] = fit_logistic(
                vectors_nd[known], labels, regularisation=regularisation, iterations=iterations
            )

    def say(self, vectors_nd: NDArray[np.float32]) -> Said:
        """The value of each attribute that each image shows, by name [n]."""
        return {name: probe.predict(vectors_nd) for name, probe in self._probes.items()}
