"""Control: random directions of the residual stream."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vista.interventions.method import DirectionMethod

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from vista.interventions.directions import Directions
    from vista.interventions.search import Search


def find(search: Search) -> Directions:
    """Return a random direction for each concept."""
    from vista.interventions.directions import ConceptDirection, Directions

    selection = search.select()
    concepts = tuple(
        ConceptDirection(name, True, int(present_b.sum()), norm=1.0)
        for name, present_b in zip(selection.names, selection.present_bc.T, strict=True)
    )
    width = search.loaders.llm_width()
    rows_cd = random_directions(len(concepts), width, search.settings.seed)
    return Directions(search.settings.method, "stream", concepts, rows_cd)


def random_directions(n: int, d: int, seed: int) -> NDArray[np.float32]:
    """`n` independent directions, uniform on the sphere, unit rows [n, d]."""
    import numpy as np

    from vista.interventions.directions import unit_rows

    return unit_rows(np.random.default_rng(seed).standard_normal((n, d)))


METHOD = DirectionMethod(find, reads=("llm",), has_block=False)
