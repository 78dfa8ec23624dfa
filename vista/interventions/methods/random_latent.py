"""Control: labelled text-SAE latents that fire about as often and do not name the concept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from vista.interventions.method import DirectionMethod

if TYPE_CHECKING:
    from vista.interventions.directions import Directions
    from vista.interventions.search import Search
    from vista.interventions.selection import BoolArray, Candidate, Chosen


def find(search: Search) -> Directions:
    """Return the summed decoder rows of latents drawn in the place of each concept's best."""
    from vista.interventions.text_latents import TextLatents

    latents, settings = TextLatents(search), search.settings
    drawn = random_like(
        latents.best, latents.candidates, latents.named, settings.nearest, settings.seed
    )
    return latents.directions(drawn)


def random_like(
    best: Sequence[Sequence[Chosen]],
    candidates: Sequence[Candidate],
    named: BoolArray,
    nearest: int,
    seed: int,
) -> list[list[Chosen]]:
    """Draw for each concept's latents as many labelled ones of the same layer that fire about as
    often and do not name it: each out of the `nearest` by density.

    `named` [candidate, concept] says which label names which concept.
    """
    import numpy as np

    from vista.interventions.selection import Chosen

    rng = np.random.default_rng(seed)
    drawn: list[list[Chosen]] = []
    for c, latents in enumerate(best):
        taken: list[Chosen] = []
        for like in latents:
            used = {chosen.candidate.at for chosen in taken}
            others = [
                candidate
                for i, candidate in enumerate(candidates)
                if candidate.layer == like.candidate.layer
                and not named[i, c]
                and candidate.at not in used
            ]
            density = like.candidate.density
            others.sort(key=lambda other: (abs(other.density - density), *other.at))
            pool = others[:nearest]
            if pool:
                taken.append(Chosen(pool[int(rng.integers(len(pool)))], None))
        drawn.append(taken)
    return drawn


METHOD = DirectionMethod(find, reads=("latents", "labels", "saes"))
