"""Latents as directions: labelled candidates, and the summed decoder rows of those chosen.

Shape legend: c concept, s dictionary latent, d width of the edited space.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vista.interventions.directions import ConceptDirection, Directions, Space, summed_rows
from vista.interventions.search import Selection
from vista.interventions.selection import Candidate, Chosen
from vista.sae.label_table import LatentLabels


def labelled_candidates(
    layer: int, table: LatentLabels, density_s: NDArray[Any]
) -> list[Candidate]:
    """Return the latents of a layer that have a label; `density_s` says how often each fires."""
    share_s = np.nan_to_num(np.asarray(table.share_s, dtype=np.float64), nan=-1.0)
    return [
        Candidate(layer, s, label, float(share_s[s]), float(density_s[s]))
        for s, label in enumerate(table.label_s)
        if label and label.strip()
    ]


def latent_directions(
    method: str,
    space: Space,
    selection: Selection,
    chosen: Sequence[Sequence[Chosen]],
    decoder: Mapping[tuple[int, int], NDArray[np.float32]],
    width: int,
) -> Directions:
    """Return the directions along each concept's chosen latents, the best of them first.

    `decoder` has their decoder rows [width] by (layer, latent).
    """
    direction_cd = np.zeros((len(selection.names), width), dtype=np.float32)
    concepts = []
    for c, (name, latents) in enumerate(zip(selection.names, chosen, strict=True)):
        n_images = int(selection.present_bc[:, c].sum())
        if not latents:
            concepts.append(ConceptDirection(name, False, n_images))
            continue
        ids = tuple(latent.candidate.at for latent in latents)
        direction_cd[c], norm = summed_rows([decoder[at] for at in ids])
        best = latents[0]
        concepts.append(
            ConceptDirection(
                name,
                bool(norm > 0),
                n_images,
                layer=ids[0][0] if space == "stream" else None,
                latent=ids[0][1],
                label=best.candidate.label,
                auroc=best.auroc,
                density=best.candidate.density,
                norm=norm,
                latents=ids,
            )
        )
    return Directions(method, space, tuple(concepts), direction_cd)
