"""Which other concept stands in for the source in the control of wrong concepts, image by image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from vista.config.edits import EditSettings
from vista.data.records import reference
from vista.errors import UserError
from vista.inputs.edit_plan import Item
from vista.interventions.controls import wrong_concept
from vista.interventions.directions import Directions
from vista.judges import Judge


def with_wrong_concepts(
    items: Sequence[Item], settings: EditSettings, directions: Directions, judge: Judge
) -> list[Item]:
    """Give each item a concept that has a direction and is neither its source, nor its target, nor
    in its image: no object of it, and not named by its reference caption.

    Nor does it share a latent with source or target. Items without such a concept are left out.

    Raises:
        UserError: No item has one.
    """
    names = directions.names
    latents = {
        concept.concept: set(concept.latents) for concept in directions.concepts if concept.found
    }
    verdicts = judge.judge([reference(item.record) for item in items], names)
    controlled = []
    for item, named_c in zip(items, verdicts, strict=True):
        edited = {item.source} if item.target is None else {item.source, item.target}
        present = {*edited, *item.record.categories}
        present |= {name for name, is_named in zip(names, named_c, strict=True) if is_named}
        taken = set().union(*(latents.get(name, set()) for name in edited))
        candidates = {name for name in latents if not latents[name] & taken}
        wrong = wrong_concept(candidates, present, settings.seed, item.record.image_id)
        if wrong is not None:
            controlled.append(replace(item, wrong=wrong))
    if items and not controlled:
        raise UserError(
            "edit.controls: wrong_concept needs a concept with a direction that is not in the "
            "image, and no image has one; find directions of more concepts, or leave it out"
        )
    return controlled
