"""Difference of means: of the stream's tokens at a concept's places and elsewhere.

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
    """Return each concept's difference of means after the block that the settings name."""
    from vista.interventions.fitted import fitted_directions

    return fitted_directions(search, mean_difference)


def mean_difference(x_nd: NDArray[Any], positive_cn: BoolArray) -> NDArray[np.float32]:
    """Mean of the concept's tokens minus mean of the others, unit rows [c, d].

    Zero for a concept that all tokens have, or none.
    """
    import numpy as np

    from vista.interventions.directions import unit_rows

    rows = np.zeros((len(positive_cn), x_nd.shape[1]))
    for c, positive_n in enumerate(positive_cn):
        if positive_n.any() and not positive_n.all():
            inside_d, outside_d = (
                x_nd[mask_n].mean(0, np.float64) for mask_n in (positive_n, ~positive_n)
            )
            rows[c] = inside_d - outside_d
    return unit_rows(rows)


METHOD = DirectionMethod(find, reads=("llm", "projector"))
