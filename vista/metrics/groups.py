"""Groups of a run's images: parts of the data that a metric reports beside the whole.

A record's `group` names its part, such as test images of photographs that no training image shows.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def group_rows(groups: Sequence[str | None]) -> dict[str, NDArray[np.int64]]:
    """Return the positions of each group's images, by its name in alphabetical order.

    Empty if all images are in one group, of which the whole tells everything.

    Args:
        groups: The group of each image; None: it is in none.
    """
    names = sorted({group for group in groups if group is not None})
    if len(set(groups)) < 2:
        return {}
    return {
        name: np.array([i for i, group in enumerate(groups) if group == name], dtype=np.int64)
        for name in names
    }
