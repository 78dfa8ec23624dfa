"""Concepts that edits use: their directions, and their latents where an edit reads them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from vista.engine.artifacts import Artifact
from vista.errors import UserError
from vista.interventions.directions import Directions

if TYPE_CHECKING:
    from vista.interventions.edits import Concept


def edit_concepts(
    directions: Directions, saes: Sequence[Artifact] | None, device_of: Callable[[int], Any]
) -> dict[str, Concept]:
    """Return the concepts that have a direction, by name.

    Args:
        directions: The directions.
        saes: The SAEs of the directions' latents; None for edits that read no latent.
        device_of: The device of the SAE of a layer.

    Raises:
        UserError: The SAE of a latent's layer is not given, damaged or of another width.
    """
    import torch

    from vista.interventions.edits import Concept, Latent

    by_layer = {} if saes is None else _saes(directions, saes, device_of)
    concepts = {}
    for c, concept in enumerate(directions.concepts):
        if concept.found:
            latents = tuple(
                Latent(by_layer[layer], number)
                for layer, number in concept.latents
                if saes is not None
            )
            concepts[concept.concept] = Concept(
                torch.from_numpy(directions.direction_cd[c].copy()),
                latents,
                {
                    block: torch.from_numpy(rows_cd[c].copy())
                    for block, rows_cd in directions.further.items()
                },
            )
    return concepts


def _saes(
    directions: Directions, artifacts: Sequence[Artifact], device_of: Callable[[int], Any]
) -> dict[int, Any]:
    """Return the SAEs of the directions' latents by layer."""
    from vista.sae.neutral import CONFIG_FILE, load_sae

    layers = {layer for concept in directions.concepts for layer, _ in concept.latents}
    width = directions.direction_cd.shape[1]
    saes = {}
    for artifact in artifacts:
        config = json.loads(artifact.file(CONFIG_FILE).read_text(encoding="utf-8"))
        layer = int(config["layer"])
        if layer in layers:
            artifact.verify()
            saes[layer] = load_sae(artifact.path, expect_d_in=width).to(device_of(layer))
    if missing := sorted(layers - set(saes)):
        raise UserError(
            f"edit: the directions' latents are of layer {missing[0]}, which no SAE is given "
            "for; add it to the SAEs"
        )
    return saes
