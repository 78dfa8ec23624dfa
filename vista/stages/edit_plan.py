"""Which images are edited, from what to what, at which patches: settled before a model runs.

Legend of shape suffixes: p patch token.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vista.artifacts import Artifact, digest_text
from vista.config.interventions import EditSettings
from vista.data.geometry import ImageGeometry
from vista.data.records import Object, Record, RecordTable, Turn, decode_mask
from vista.errors import UserError
from vista.interventions.directions import Directions
from vista.interventions.selection import derangement
from vista.judges import load_judge
from vista.judges.synonyms import SYNONYMS
from vista.judges.words import inflections
from vista.stages.caption import DEFAULT_QUESTION
from vista.stages.direction_inputs import reference
from vista.stages.latent_inputs import read_geometry

BoolArray = NDArray[np.bool_]


@dataclass(frozen=True)
class Variant:
    """One edit of an image: `place` is object, outside, all or active."""

    place: str
    coefficient: float


@dataclass(frozen=True)
class Item:
    """One image to edit.

    Attributes:
        row: Its row in the records.
        record: Its record.
        source: What is to go.
        target: What is to come, None for removal.
        asked: The question, and the reference caption as its answer.
        touched: Words for source and target in any text.
        object_p: Patches of the object.
        outside_p: As many patches outside its box, drawn; fewer where there are not as many.
    """

    row: int
    record: Record
    source: str
    target: str | None
    asked: Turn
    touched: re.Pattern[str]
    object_p: BoolArray
    outside_p: BoolArray

    def patches(self, place: str, firing_p: BoolArray | None) -> BoolArray:
        """The patches [p] that a variant edits; `firing_p` where the source's latent fires."""
        if place == "active":
            assert firing_p is not None
            return firing_p
        if place == "all":
            return np.ones_like(self.object_p)
        return self.object_p if place == "object" else self.outside_p


def variants_of(settings: EditSettings) -> list[Variant]:
    """Return the edits that each image gets: places in the order of the config, then control."""
    places: list[str] = list(settings.tokens)
    if settings.outside and "object" in places:
        places.append("outside")
    return [Variant(place, c) for place in places for c in settings.coefficients]


def plan_items(
    settings: EditSettings, records: RecordTable, directions: Directions, features: Artifact
) -> list[Item]:
    """Return the images with exactly one object (crowds apart) that have a source, in order.

    An image whose object was cropped away altogether, or has no mask where masks are asked for, is
    left out.

    Raises:
        UserError: `edit.pairs` or `edit.only` names what the directions have no entry for.
    """
    target_of = _targets(settings, directions)
    shape = read_geometry(features)
    rows = records.rows_of(settings.split).tolist()
    shown = records.select(rows)
    sources = _sources(settings, shown, directions)
    patterns: dict[tuple[str, str | None], re.Pattern[str]] = {}
    items = []
    for row, record, source in zip(rows, shown, sources, strict=True):
        if source is None or source not in target_of:
            continue
        target = target_of[source]
        found = _patches(settings, record, shape)
        if found is not None:
            if (source, target) not in patterns:
                patterns[source, target] = words_for([source, *([target] if target else [])])
            asked = _asked(settings, record)
            touched = patterns[source, target]
            items.append(Item(row, record, source, target, asked, touched, *found))
    most = settings.max_images
    if most is not None and len(items) > most:
        drawn = np.random.default_rng(settings.seed).permutation(len(items))[:most]
        items = [items[i] for i in sorted(drawn.tolist())]
    return items


def words_for(names: Sequence[str]) -> re.Pattern[str]:
    """Return what finds the names, their synonyms and plurals in a text, as whole words."""
    spellings = {
        phrase
        for name in names
        for each in (name, *SYNONYMS.get(name, ()))
        for phrase in inflections(each)
    }
    # Longest first, so that "hot dogs" is found whole.
    alternatives = sorted((r"[\W_]+".join(map(re.escape, each)) for each in spellings), key=len)
    body = "|".join(reversed(alternatives)) or r"(?!)"
    return re.compile(rf"(?<![^\W_])(?:{body})(?![^\W_])", re.IGNORECASE)


def _targets(settings: EditSettings, directions: Directions) -> dict[str, str | None]:
    """Source -> target, None for removal: what the config asks for, found or not."""
    names = directions.names
    if settings.task == "remove":
        target_of: dict[str, str | None] = dict.fromkeys(names)
    elif settings.pairs == "derangement":
        # By name: the same pairs whatever the method, so that methods are compared on them.
        names = sorted(names)
        partner = derangement(len(names), settings.seed)
        target_of = {names[c]: names[other] for c, other in enumerate(partner) if other != c}
    else:
        target_of = dict(settings.pairs)
        takes = settings.how in ("remove_add", "swap") or "active" in settings.tokens
        asked = {target for _, target in settings.pairs} | (set(target_of) if takes else set())
        if missing := sorted(asked - set(names)):
            raise UserError(
                f"edit.pairs: the directions have no entry for {missing[0]!r}; add it to "
                "directions.concepts.words"
            )
    if missing := sorted(set(settings.only) - set(target_of)):
        raise UserError(f"edit.only: {missing[0]!r} is no source; choose among the concepts")
    if settings.only:
        target_of = {name: target_of[name] for name in settings.only}
    return target_of


def _sources(
    settings: EditSettings, shown: Sequence[Record], directions: Directions
) -> list[str | None]:
    """What stands for the source in each image; None where it has not exactly one object."""
    one = [sum(not each.crowd for each in record.objects) == 1 for record in shown]
    if settings.sources == "objects":
        return [
            _object(record).category if single else None
            for record, single in zip(shown, one, strict=True)
        ]
    judge = load_judge(settings.judge)
    said = judge.judge([reference(record) for record in shown], directions.names)
    return [
        directions.names[int(np.argmax(said_c))] if single and said_c.any() else None
        for single, said_c in zip(one, said, strict=True)
    ]


def _object(record: Record) -> Object:
    return next(each for each in record.objects if not each.crowd)


def _patches(
    settings: EditSettings, record: Record, shape: dict[str, Any]
) -> tuple[BoolArray, BoolArray] | None:
    """Patches of the one object, and the drawn ones outside its box; None if it has none."""
    geometry, item = ImageGeometry(record.width, record.height, **shape), _object(record)
    box_p = object_p = geometry.box_to_patches(item.box)
    if settings.object_by == "mask":
        if item.rle is None:
            return None
        object_p = geometry.mask_to_patches(decode_mask(item.rle)) >= settings.mask_cover
    if not object_p.any():
        return None
    # A seed of the image's own: what is drawn does not depend on the other images.
    seed = int(digest_text(f"{settings.seed} {record.image_id}")[:16], 16)
    free = np.flatnonzero(~(box_p | object_p))
    drawn = np.random.default_rng(seed).permutation(free)[: int(object_p.sum())]
    outside_p = np.zeros_like(object_p)
    outside_p[drawn] = True
    return object_p, outside_p


def _asked(settings: EditSettings, record: Record) -> Turn:
    """The question, with the reference caption for an answer."""
    if settings.question is None and record.turns:
        return record.turns[0]
    return Turn(settings.question or DEFAULT_QUESTION, reference(record))
