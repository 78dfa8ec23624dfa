"""Controls of an edit: the same edit with something else in place of the source's direction.

They tell what the source's own direction contributes. Where a random direction does as well, or
none at all, the score is that of the target's direction, or of the disturbance.

Shape legend: d width of the edited space.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vista.config.edits import EditControl
from vista.interventions.directions import unit_rows
from vista.interventions.selection import image_rng

if TYPE_CHECKING:
    from vista.interventions.edits import Concept, RowEdit


def controlled(edit: RowEdit, control: EditControl, stand_in: Concept | None) -> RowEdit:
    """Return the edit of a row as a control makes it.

    Args:
        edit: The edit of the method.
        control: What differs: target_only adds the target's direction alone; the others put
            `stand_in` in place of the source.
        stand_in: A random direction, or another concept's.

    Raises:
        ValueError: The control needs a stand-in, or a target, and there is none.
    """
    if control == "target_only":
        if edit.target is None:
            raise ValueError("target_only needs a target")
        return replace(edit, how="add")
    if stand_in is None:
        raise ValueError(f"{control} needs a direction to put in place of the source's")
    return replace(edit, source=stand_in)


def random_direction(width: int, seed: int, image_id: str) -> NDArray[np.float32]:
    """A direction of an image's own, uniform on the sphere: unit vector [d]."""
    rng = image_rng(seed, image_id, "random_source")
    direction_d: NDArray[np.float32] = unit_rows(rng.standard_normal((1, width)))[0]
    return direction_d


def wrong_concept(
    candidates: Collection[str], present: Collection[str], seed: int, image_id: str
) -> str | None:
    """Draw another concept for an image; None where there is none.

    Args:
        candidates: Concepts that have a direction.
        present: Concepts that the image has, with the source and the target of its edit.
        seed: Seed of the draw.
        image_id: The image.
    """
    absent = sorted(set(candidates) - set(present))
    return str(image_rng(seed, image_id, "wrong_concept").choice(absent)) if absent else None
