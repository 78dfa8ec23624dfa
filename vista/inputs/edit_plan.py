"""Plan the edits before a model runs: which images, from which source to which target, and where.

Legend of shape suffixes: p patch token.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vista.config.edits import Blocks, EditSettings
from vista.data.geometry import ImageGeometry
from vista.data.records import Object, Record, RecordTable, Turn, decode_mask, reference
from vista.engine.artifacts import Artifact
from vista.errors import UserError
from vista.inputs.latents import read_geometry
from vista.inputs.questions import DEFAULT_QUESTION
from vista.interventions.directions import ConceptDirection, Directions, Space
from vista.interventions.selection import derangement, image_rng
from vista.judges import Judge
from vista.judges.synonyms import SYNONYMS
from vista.judges.words import inflections

BoolArray = NDArray[np.bool_]


@dataclass(frozen=True)
class Variant:
    """One edit of an image: `place` is object, outside, all or active.

    `blocks` are None in feature space, and where each latent's own block is edited.
    """

    place: str
    coefficient: float
    blocks: Blocks | None


@dataclass(frozen=True)
class Item:
    """One image to edit.

    Attributes:
        row: Its row in the records.
        record: Its record.
        source: The concept to remove.
        target: The concept to put in its place; None for removal.
        turn: The question, and the reference caption as its answer.
        touched: Words for source and target in any text.
        object_p: Patches of the object, or of all objects.
        outside_p: As many patches outside every box, drawn; fewer where there are not as many.
        wrong: Another concept, which is not in the image; None but for that control.
    """

    row: int
    record: Record
    source: str
    target: str | None
    turn: Turn
    touched: re.Pattern[str]
    object_p: BoolArray
    outside_p: BoolArray
    wrong: str | None = None

    def patches(self, place: str, firing_p: BoolArray | None) -> BoolArray:
        """The patches [p] that a variant edits; `firing_p` where the source's latent fires."""
        if place == "active":
            assert firing_p is not None
            return firing_p
        if place == "all":
            return np.ones_like(self.object_p)
        return self.object_p if place == "object" else self.outside_p


def variants_of(settings: EditSettings, space: Space) -> list[Variant]:
    """Return the edits that each image gets: places in the order of the config, then control."""
    places: list[str] = list(settings.tokens)
    if settings.outside and "object" in places:
        places.append("outside")
    choices: Sequence[Blocks | None] = (None,)
    if space == "stream" and settings.blocks is not None:
        choices = settings.blocks
    return [
        Variant(place, coefficient, blocks)
        for place in places
        for blocks in choices
        for coefficient in settings.coefficients
    ]


def refuse_unfit_edits(
    settings: EditSettings, concepts: Sequence[ConceptDirection], n_blocks: int
) -> None:
    """Refuse edits of the residual stream that these directions or this model do not allow.

    Edits that no directions of a method allow are refused when the config is planned.

    Raises:
        UserError: The language model lacks a block, or the block of the latents is edited and a
            concept has latents of several layers.
    """
    for concept in concepts if settings.blocks is None else ():
        layers = sorted({layer for layer, _ in concept.latents}) if concept.found else []
        if len(layers) > 1:
            raise UserError(
                f"edit.blocks is null, but the latents of {concept.concept!r} are of layers "
                f"{layers}; set directions.n_latents to 1, or list the blocks of an edit that "
                "reads no latent"
            )
    last = n_blocks - 1
    for blocks in settings.blocks or ():
        if blocks[-1] > last:
            raise UserError(f"edit.blocks {list(blocks)}: the language model has blocks 0..{last}")


def plan_items(
    settings: EditSettings,
    records: RecordTable,
    directions: Directions,
    features: Artifact,
    judge: Judge,
) -> list[Item]:
    """Return the images that have a source and patches to edit, in order.

    `judge` says which concepts a reference caption names, where these are the sources. With
    `images` one_object an image has exactly one object (crowds apart); it is left out where that
    was cropped away altogether, or has no mask where masks are asked for. With `images` any that
    holds for edits of the objects' patches only.

    Raises:
        UserError: `edit.pairs` or `edit.only` names what the directions have no entry for.
    """
    target_of = _targets(settings, directions)
    shape = read_geometry(features)
    rows = records.rows_of(settings.split).tolist()
    pictures = [
        (row, record)
        for row, record in zip(rows, records.select(rows), strict=True)
        if settings.images == "any" or len(_objects(record)) == 1
    ]
    shown = [record for _, record in pictures]
    sources = _sources(settings, shown, directions.names, target_of, judge)
    patterns: dict[tuple[str, str | None], re.Pattern[str]] = {}
    items = []
    for (row, record), source in zip(pictures, sources, strict=True):
        if source is None:
            continue
        target = target_of[source]
        patches = _patches(settings, record, shape)
        if patches is not None:
            if (source, target) not in patterns:
                patterns[source, target] = words_for([source, *([target] if target else [])])
            turn = question_of(settings, record)
            touched = patterns[source, target]
            items.append(Item(row, record, source, target, turn, touched, *patches))
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
        for spelling in (name, *SYNONYMS.get(name, ()))
        for phrase in inflections(spelling)
    }
    # Longest first, so that "hot dogs" is found whole.
    alternatives = sorted((r"[\W_]+".join(map(re.escape, words)) for words in spellings), key=len)
    body = "|".join(reversed(alternatives)) or r"(?!)"
    return re.compile(rf"(?<![^\W_])(?:{body})(?![^\W_])", re.IGNORECASE)


def _targets(settings: EditSettings, directions: Directions) -> dict[str, str | None]:
    """The target of each source of the config, None for removal; with or without a direction."""
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
    if missing := sorted(set(settings.only) - set(target_of)):
        raise UserError(f"edit.only: {missing[0]!r} is no source; choose among the concepts")
    if settings.only:
        target_of = {name: target_of[name] for name in settings.only}
    # Only an edit that reads the source needs a direction of it.
    takes = (
        settings.how in ("remove_add", "swap")
        or "active" in settings.tokens
        or settings.sources == "words"
    )
    needed = {target for target in target_of.values() if target} | set(target_of if takes else ())
    if missing := sorted(needed - set(directions.names)):
        raise UserError(
            f"edit.pairs: the directions have no entry for {missing[0]!r}; add it to "
            "directions.concepts.words"
        )
    return target_of


def _sources(
    settings: EditSettings,
    shown: Sequence[Record],
    names: Sequence[str],
    target_of: Mapping[str, str | None],
    judge: Judge,
) -> list[str | None]:
    """The source in each image; None where the image has none of the sources.

    Of several words that a caption names one is drawn. A word whose target the caption names, too,
    is no source: the target would be there without any edit.
    """
    if settings.sources == "objects":
        categories = [_objects(record)[0].category for record in shown]
        return [category if category in target_of else None for category in categories]
    # Judged among all concepts, not among the sources only: "top left" is not the concept "top".
    verdicts = judge.judge([reference(record) for record in shown], names)
    sources: list[str | None] = []
    for record, named_c in zip(shown, verdicts, strict=True):
        named = {name for name, is_named in zip(names, named_c, strict=True) if is_named}
        # By name: the same source whatever the method.
        fit = sorted(name for name in named & set(target_of) if target_of[name] not in named)
        rng = image_rng(settings.seed, record.image_id)
        sources.append(str(rng.choice(fit)) if fit else None)
    return sources


def _objects(record: Record) -> list[Object]:
    return [item for item in record.objects if not item.crowd]


def _patches(
    settings: EditSettings, record: Record, shape: dict[str, Any]
) -> tuple[BoolArray, BoolArray] | None:
    """Patches of the objects, and as many drawn outside all boxes; None where an image needs object
    patches and has none."""
    geometry = ImageGeometry(record.width, record.height, **shape)
    nowhere_p = np.zeros(geometry.n_patches, dtype=bool)

    def touched(objects: Sequence[Object]) -> BoolArray:
        boxes = [geometry.box_to_patches(item.box) for item in objects]
        touched_p: BoolArray = np.any([nowhere_p, *boxes], axis=0)
        return touched_p

    objects = _objects(record)
    object_p = touched(objects)
    if settings.object_by == "mask":
        masks = [decode_mask(item.rle) for item in objects if item.rle is not None]
        object_p = nowhere_p
        if masks and len(masks) == len(objects):
            cover_p = geometry.mask_to_patches(np.any(masks, axis=0))
            object_p = cover_p >= settings.mask_cover
    if not object_p.any() and (settings.images == "one_object" or "object" in settings.tokens):
        return None
    free = np.flatnonzero(~(touched(record.objects) | object_p))
    outside_p = nowhere_p.copy()
    rng = image_rng(settings.seed, record.image_id)
    outside_p[rng.permutation(free)[: int(object_p.sum())]] = True
    return object_p, outside_p


def question_of(settings: EditSettings, record: Record) -> Turn:
    """The question, with the reference caption for an answer."""
    if settings.question is None and record.turns:
        return record.turns[0]
    question = DEFAULT_QUESTION if settings.question is None else settings.question
    return Turn(question, reference(record))
