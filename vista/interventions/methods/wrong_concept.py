"""Control: the text-SAE latents of another concept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from vista.interventions.method import DirectionMethod

if TYPE_CHECKING:
    from vista.interventions.directions import Directions
    from vista.interventions.search import Search
    from vista.interventions.selection import Chosen


def find(search: Search) -> Directions:
    """Return the summed decoder rows of the best latents of another concept than each."""
    from vista.interventions.text_latents import TextLatents

    latents = TextLatents(search)
    names = latents.selection.names
    return latents.directions(exchanged(names, latents.best, search.settings.seed))


def exchanged(names: Sequence[str], chosen: list[list[Chosen]], seed: int) -> list[list[Chosen]]:
    """Give each concept the latents of another that has some; none where no other has any.

    Replacement draws targets by the same cycle through the sorted names. Here it is walked the
    other way: a source that was edited along its own target would fail by construction.
    """
    from vista.interventions.selection import Chosen, derangement

    order = sorted(range(len(names)), key=names.__getitem__)
    before = {order[after]: order[c] for c, after in enumerate(derangement(len(names), seed))}
    out: list[list[Chosen]] = [[] for _ in chosen]
    for c in (c for c, latents in enumerate(chosen) if latents):
        other = before[c]
        while not chosen[other]:
            other = before[other]
        if other != c:
            # How well it marks its own concept says nothing about this one.
            out[c] = [Chosen(latent.candidate, None) for latent in chosen[other]]
    return out


METHOD = DirectionMethod(find, reads=("latents", "labels", "saes"))
