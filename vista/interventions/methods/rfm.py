"""Top eigenvector of what a recursive feature machine learns of a concept's places.

The method of universal steering (arXiv 2502.03708): `vista.interventions.feature_machine`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vista.interventions.method import DirectionMethod

if TYPE_CHECKING:
    from vista.interventions.directions import Directions
    from vista.interventions.search import Search


def find(search: Search) -> Directions:
    """Return each concept's direction after the block that the settings name."""
    from vista.interventions.feature_machine import images_of_tokens, rfm
    from vista.interventions.fitted import fitted_directions

    settings = search.settings
    image_n = images_of_tokens(search.select(), settings.patches_per_image)
    return fitted_directions(
        search, lambda x_nd, positive_cn: rfm(x_nd, positive_cn, image_n, settings.seed)
    )


METHOD = DirectionMethod(find, reads=("llm", "projector"))
