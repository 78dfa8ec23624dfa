"""Weights of a logistic regression of a concept's places on the stream's tokens.

Shape legend: n token, d width, c concept.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vista.interventions.method import DirectionMethod

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from vista.interventions.directions import Directions
    from vista.interventions.search import Search
    from vista.interventions.selection import BoolArray


def find(search: Search) -> Directions:
    """Return each concept's regression weights after the block that the settings name."""
    from vista.interventions.fitted import fitted_directions

    regularisation = search.settings.regularisation
    return fitted_directions(
        search, lambda x_nd, positive_cn: logistic(x_nd, positive_cn, regularisation)
    )


def logistic(
    x_nd: NDArray[Any], positive_cn: BoolArray, regularisation: float
) -> NDArray[np.float32]:
    """Weights of one logistic regression a concept against all other tokens, unit rows [c, d].

    Classes are weighted to be of one size. Tokens are centred and divided by one number (their root
    mean square), so that `regularisation` means the same in streams of any scale. Zero for a
    concept that all tokens have, or none.
    """
    import numpy as np
    from sklearn.linear_model import LogisticRegression

    from vista.interventions.directions import unit_rows

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


METHOD = DirectionMethod(find, reads=("llm", "projector"))
