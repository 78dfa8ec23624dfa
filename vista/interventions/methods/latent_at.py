"""Text-SAE latents that the config gives: published ones, or those of a user's file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vista.errors import UserError
from vista.interventions.method import DirectionMethod

if TYPE_CHECKING:
    from vista.interventions.directions import Directions
    from vista.interventions.search import Search
    from vista.interventions.selection import Candidate, Chosen
    from vista.interventions.text_latents import TextLatents


def find(search: Search) -> Directions:
    """Return the decoder row of each concept's given latent.

    Raises:
        UserError: The given latents cannot be read, or one is of a layer or SAE that is not here.
    """
    from vista.interventions.selection import Chosen, sparse_auroc
    from vista.interventions.text_latents import TextLatents

    settings = search.settings
    ids = (
        published_latents(settings.preset)
        if settings.preset
        else read_latent_ids(Path(str(settings.path)))
    )
    latents = TextLatents(search, list(ids))
    selection = latents.selection
    chosen: list[list[Chosen]] = []
    for name, positive_u in zip(selection.names, selection.positive_cu, strict=True):
        if name not in ids:
            chosen.append([])
            continue
        candidate = _candidate(name, *ids[name], latents)
        auroc = sparse_auroc(*latents.firings(*ids[name]), positive_u)
        chosen.append([Chosen(candidate, auroc)])
    return latents.directions(chosen)


def _candidate(name: str, layer: int, latent: int, latents: TextLatents) -> Candidate:
    from vista.interventions.selection import Candidate

    store = latents.store
    if layer not in store.layers or not 0 <= latent < store.layers[layer]:
        raise UserError(
            f"directions: {name} is given as latent {latent} of layer {layer}, which the latents "
            "do not hold; add that layer to the SAEs' layers"
        )
    density = float(store.token_frequency(layer)[latent])
    table = latents.labels[layer]
    return Candidate(layer, latent, table.label_s[latent], float(table.share_s[latent]), density)


def published_latents(model: str) -> dict[str, tuple[int, int]]:
    """Return concept -> (layer, latent) as the VISTA paper uses them with a language model.

    Raises:
        UserError: The paper has none for the model.
    """
    path = Path(__file__).with_name("published_latents.json")
    table: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if model not in table:
        raise UserError(f"directions.preset {model!r} is unknown; choose one of {', '.join(table)}")
    return _latent_ids(table[model])


def read_latent_ids(path: Path) -> dict[str, tuple[int, int]]:
    """Return concept -> (layer, latent) out of a user's file.

    Raises:
        UserError: The file is missing or has another form.
    """
    try:
        return _latent_ids(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise UserError(
            f"directions.path: {path} is not of the form "
            f'{{"cat": {{"layer": 4, "latent": 15456}}}} ({error})'
        ) from error


def _latent_ids(table: Mapping[str, Mapping[str, Any]]) -> dict[str, tuple[int, int]]:
    ids = {concept: (at["layer"], at["latent"]) for concept, at in table.items()}
    for concept, pair in ids.items():
        if any(type(n) is not int or n < 0 for n in pair):
            raise ValueError(f"{concept!r} has no whole numbers of a layer and a latent")
    return ids


METHOD = DirectionMethod(find, reads=("latents", "labels", "saes"))
