"""Scores of single edited captions: the names that an edit takes away, and those that it adds.

An item is one image with its source (what is to go) and target (what is to come, or None).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from vista.judges.words import words
from vista.metrics.matching_rate.measure import JudgeFunction

ItemKey = tuple[str, str, str | None]
# One edit: the patches, the coefficient, the blocks (None: the config lists none).
Edit = tuple[str, float, tuple[int, ...] | None]

# The variants of the unedited caption, and of the control: patches outside the object.
UNEDITED, OUTSIDE = "none", "outside"


@dataclass(frozen=True)
class EditedCaption:
    """One generated caption.

    Attributes:
        image_id: The image.
        source: What is to go.
        target: What is to come; None for removal.
        variant: Which patches were edited; "none" for the unedited caption.
        coefficient: Length of the added direction; 0 for the unedited caption.
        blocks: Blocks after which the stream was edited; None where the config lists none.
        caption: The text.
        found: Whether the method has the directions that the edit needs.
        loss_sum: Negative log likelihood, in nats, of the reference's tokens apart from the words
            for source and target.
        loss_tokens: Number of those tokens.
        damage_sum: KL divergence of the next token, unedited from edited, in nats: sum over the
            tokens of the unedited caption apart from the words for source and target.
        damage_tokens: Number of those tokens.
    """

    image_id: str
    source: str
    target: str | None
    variant: str
    coefficient: float
    blocks: tuple[int, ...] | None
    caption: str
    found: bool
    loss_sum: float = 0.0
    loss_tokens: int = 0
    damage_sum: float = 0.0
    damage_tokens: int = 0

    @property
    def key(self) -> ItemKey:
        """The item: image, source, target."""
        return (self.image_id, self.source, self.target)

    @property
    def edit(self) -> Edit:
        """The edit: place, coefficient, blocks."""
        return (self.variant, self.coefficient, self.blocks)


@dataclass(frozen=True)
class Shown:
    """What an image shows: names of its objects, and attribute words of its reference texts."""

    objects: frozenset[str]
    attributes: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Scored:
    """One item under one edit.

    Attributes:
        image_id: The image.
        source: What is to go.
        target: What is to come; None for removal.
        variant: Which patches were edited.
        coefficient: Length of the added direction.
        blocks: Blocks after which the stream was edited; None where the config lists none.
        found: Whether the method has the directions that the edit needs.
        named_before: The unedited caption names the source.
        removed: The unedited caption names the source, the edited one does not and is not empty.
        replaced: Removed, and the edited caption names the target.
        both_named: The edited caption names source and target.
        empty: The edited caption has no word.
        new_details: Objects and attributes that the edited caption names, that the image does not
            show, that the unedited caption does not name, and that are not the target.
        score: 0 failed, 1 done with new details, 2 clean.
        objects_before: Objects beside source and target that the unedited caption names.
        objects_kept: Those of them that the edited caption names, too.
        attributes_before: The same for attribute words.
        attributes_kept: The same for attribute words.
        hallucinated_change: Objects other than source and target that the caption names and the
            image does not show: edited less unedited.
        loss_change: Negative log likelihood, in nats, of the reference's tokens apart from the
            words for source and target: edited less unedited.
        loss_tokens: Number of those tokens.
        damage_sum: KL divergence of the next token, unedited from edited, in nats: sum over the
            tokens of the unedited caption apart from the words for source and target.
        damage_tokens: Number of those tokens.
    """

    image_id: str
    source: str
    target: str | None
    variant: str
    coefficient: float
    blocks: tuple[int, ...] | None
    found: bool
    named_before: bool
    removed: bool
    replaced: bool
    both_named: bool
    empty: bool
    new_details: tuple[str, ...]
    score: int
    objects_before: int
    objects_kept: int
    attributes_before: int
    attributes_kept: int
    hallucinated_change: int
    loss_change: float
    loss_tokens: int
    damage_sum: float = 0.0
    damage_tokens: int = 0

    @property
    def key(self) -> ItemKey:
        """The item: image, source, target."""
        return (self.image_id, self.source, self.target)

    @property
    def edit(self) -> Edit:
        """The edit: place, coefficient, blocks."""
        return (self.variant, self.coefficient, self.blocks)


def shown_by(
    objects: Mapping[str, Iterable[str]],
    texts: Mapping[str, Sequence[str]],
    attributes: Sequence[str],
    judge: JudgeFunction,
) -> dict[str, Shown]:
    """Return what each image shows.

    Args:
        objects: Names of the objects of each image.
        texts: Reference texts of each image; the attributes that they name are shown.
        attributes: Attribute words to look for.
        judge: Says which attributes a text names.
    """
    references = {image_id: "\n".join(texts.get(image_id, ())) for image_id in objects}
    named = _names(references.values(), attributes, judge)
    return {
        image_id: Shown(frozenset(names), named[references[image_id]])
        for image_id, names in objects.items()
    }


def score_captions(
    captions: Sequence[EditedCaption],
    shown: Mapping[str, Shown],
    vocabulary: Iterable[str],
    judge: JudgeFunction,
    attributes: Iterable[str] = (),
) -> list[Scored]:
    """Score every item under every edit, in a fixed order.

    An item without a direction keeps its unedited caption under every edit and fails. Other items
    may lack the control only: an object may leave no patches outside it.

    Args:
        captions: Unedited and edited captions; the edits of one item share its unedited caption.
        shown: What each image shows.
        vocabulary: Names of objects that a caption could name; sources and targets that are no
            attribute words are added.
        judge: Says which names a text holds.
        attributes: Attribute words, with the sources and targets that are words (a colour, a
            place); those that are also in the vocabulary are objects.

    Raises:
        ValueError: An item has no unedited caption or two, an edit has two captions of one item,
            or lacks one although the item has a direction.
    """
    before, edited = _unedited_and_edited(captions)
    pairs = [(caption.source, caption.target) for caption in captions]
    concepts = {name for pair in pairs for name in pair if name is not None}
    attribute_words, classes = set(attributes), set(vocabulary)
    objects = sorted(classes | (concepts - attribute_words))
    details = sorted(attribute_words - classes)
    texts = [caption.caption for caption in captions]
    objects_in = _names(texts, objects, judge)
    details_in = _names(texts, details, judge)
    scored = []
    for edit, after_by_item in sorted(edited.items(), key=lambda item: edit_order(item[0])):
        unknown = sorted(map(str, set(after_by_item) - set(before)))
        if unknown:
            raise ValueError(f"no unedited caption of {unknown[0]}")
        for key in sorted(before, key=str):
            unedited = before[key]
            after = after_by_item.get(key, unedited)
            if key not in after_by_item and after.found:
                if edit[0] == OUTSIDE:
                    continue
                raise ValueError(f"no caption of {key} at {edit}")
            # Without a direction nothing was edited.
            after = after if after.found else unedited
            scored.append(
                _score(
                    unedited,
                    after,
                    edit,
                    shown[key[0]],
                    (objects_in[unedited.caption], objects_in[after.caption]),
                    (details_in[unedited.caption], details_in[after.caption]),
                )
            )
    return scored


def edit_order(edit: Edit) -> tuple[str, float, tuple[int, ...]]:
    """Return what edits are sorted by: place, coefficient, blocks."""
    return (*edit[:2], edit[2] or ())


def _unedited_and_edited(
    captions: Iterable[EditedCaption],
) -> tuple[dict[ItemKey, EditedCaption], dict[Edit, dict[ItemKey, EditedCaption]]]:
    """Return the unedited captions by item, and the edited ones by edit and item."""
    before: dict[ItemKey, EditedCaption] = {}
    edited: dict[Edit, dict[ItemKey, EditedCaption]] = {}
    for caption in captions:
        is_unedited = caption.variant == UNEDITED
        by_item = before if is_unedited else edited.setdefault(caption.edit, {})
        if caption.key in by_item:
            raise ValueError(f"two captions of {caption.key} at {caption.edit}")
        by_item[caption.key] = caption
    return before, edited


def _score(
    before: EditedCaption,
    after: EditedCaption,
    edit: Edit,
    shown: Shown,
    objects: tuple[frozenset[str], frozenset[str]],
    attributes: tuple[frozenset[str], frozenset[str]],
) -> Scored:
    """Score one item; `objects` and `attributes` are named by the unedited and edited caption."""
    source, target = before.source, before.target
    concepts = {source, target}
    was_named, is_named = (source in objects[i] | attributes[i] for i in (0, 1))
    has_target = target is not None and target in objects[1] | attributes[1]
    # An empty caption names nothing at all: the description is gone, not the object alone.
    empty = not words(after.caption)
    removed = was_named and not is_named and not empty
    replaced = removed and has_target
    new = (objects[1] - objects[0] - shown.objects) | (
        attributes[1] - attributes[0] - shown.attributes
    )
    done = removed if target is None else replaced
    other_objects, other_details = objects[0] - concepts, attributes[0] - concepts
    no_hallucination = shown.objects | concepts
    return Scored(
        image_id=before.image_id,
        source=source,
        target=target,
        variant=edit[0],
        coefficient=edit[1],
        blocks=edit[2],
        found=after.found,
        named_before=was_named,
        removed=removed,
        replaced=replaced,
        both_named=after.found and is_named and has_target,
        empty=empty,
        new_details=tuple(sorted(new - concepts)),
        score=0 if not done else 1 if new - concepts else 2,
        objects_before=len(other_objects),
        objects_kept=len(other_objects & objects[1]),
        attributes_before=len(other_details),
        attributes_kept=len(other_details & attributes[1]),
        hallucinated_change=len(objects[1] - no_hallucination) - len(objects[0] - no_hallucination),
        loss_change=float(after.loss_sum - before.loss_sum),
        loss_tokens=before.loss_tokens,
        damage_sum=after.damage_sum if after.found else 0.0,
        damage_tokens=before.damage_tokens,
    )


def _names(
    texts: Iterable[str], names: Collection[str], judge: JudgeFunction
) -> dict[str, frozenset[str]]:
    """Return the names that each distinct text holds; no text is judged twice."""
    distinct, listed = sorted(set(texts)), list(names)
    if not listed:
        return dict.fromkeys(distinct, frozenset())
    named = judge(distinct, listed)
    return {
        text: frozenset(name for name, is_in in zip(listed, row, strict=True) if is_in)
        for text, row in zip(distinct, named, strict=True)
    }
