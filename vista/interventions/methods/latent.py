"""The text-SAE latents whose label names the concept and that mark its places best, by AUROC."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vista.interventions.method import DirectionMethod

if TYPE_CHECKING:
    from vista.interventions.directions import Directions
    from vista.interventions.search import Search


def find(search: Search) -> Directions:
    """Return the summed decoder rows of each concept's best latents."""
    from vista.interventions.text_latents import TextLatents

    latents = TextLatents(search)
    return latents.directions(latents.best)


METHOD = DirectionMethod(find, reads=("latents", "labels", "saes"))
