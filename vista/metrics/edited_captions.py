"""Scores of edited captions, one by one: what each names that its unedited caption did not.

An item is one image with its source (what is to go) and target (what is to come, or None).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from vista.judges.words import words
from vista.metrics.matching_rate.measure import JudgeFunction

ItemKey = tuple[str, str, str | None]
# One edit: which patches, coefficient, blocks (None: none that were chosen).
Edit = tuple[str, float, tuple[int, ...] | None]

# Variants that are no edit of what the image shows of the item.
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
        blocks: Blocks after which the stream was edited; None where that was no choice.
        caption: The text.
        found: Whether the method has the directions that the edit needs.
        loss_sum: Negative log likelihood, in nats, of the reference's tokens that are no words
            for source or target.
        loss_tokens: Number of those tokens.
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

    @property
    def key(self) -> ItemKey:
        """What the caption is about: image, source, target."""
        return (self.image_id, self.source, self.target)

    @property
    def edit(self) -> Edit:
        """What was edited: place, coefficient, blocks."""
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
        blocks: Blocks after which the stream was edited; None where that was no choice.
        found: Whether the method has the directions that the edit needs.
        named_before: The unedited caption names the source.
        removed: It was named and is no more; not in an empty caption.
        replaced: It was named and is no more, and the target is named.
        both_named: The edited caption names source and target.
        empty: The edited caption has no word.
        new_details: Objects and attributes that the edited caption names, that the image does not
            show, that the unedited caption does not name, and that are not the target.
        score: 0 failed, 1 done with new details, 2 clean.
        objects_before: Objects beside source and target that the unedited caption names.
        objects_kept: Those that the edited caption names too.
        attributes_before: As for objects, of the attribute words.
        attributes_kept: As for objects.
        hallucinated_change: Objects that are named and not shown, the target apart: edited less
            unedited.
        loss_change: Change of the negative log likelihood of the untouched words, in nats.
        loss_tokens: Number of their tokens.
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

    @property
    def key(self) -> ItemKey:
        """What the caption is about: image, source, target."""
        return (self.image_id, self.source, self.target)

    @property
    def edit(self) -> Edit:
        """What was edited: place, coefficient, blocks."""
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
        texts: Reference texts of each image, which may tell attributes.
        attributes: Attribute words to look for.
        judge: Says which attributes a text names.
    """
    said = {image_id: "\n".join(texts.get(image_id, ())) for image_id in objects}
    named = _names(said.values(), attributes, judge)
    return {
        image_id: Shown(frozenset(found), named[said[image_id]])
        for image_id, found in objects.items()
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
        attributes: Attribute words, sources and targets among them where those are words (a
            colour, a place); those that are also in the vocabulary are objects.

    Raises:
        ValueError: An item has no unedited caption or two, an edit has two captions of one item,
            or lacks one although the item has a direction.
    """
    before: dict[ItemKey, EditedCaption] = {}
    edited: dict[Edit, dict[ItemKey, EditedCaption]] = {}
    for each in captions:
        place = before if each.variant == UNEDITED else edited.setdefault(each.edit, {})
        if each.key in place:
            raise ValueError(f"two captions of {each.key} at {each.edit}")
        place[each.key] = each
    asked = {name for each in captions for name in (each.source, each.target) if name is not None}
    attribute_words, classes = set(attributes), set(vocabulary)
    objects = sorted(classes | (asked - attribute_words))
    details = sorted(attribute_words - classes)
    texts = [each.caption for each in captions]
    named = _names(texts, objects, judge)
    told = _names(texts, details, judge)
    scored = []
    for edit, found in sorted(edited.items(), key=lambda each: edit_order(each[0])):
        lost = sorted(map(str, set(found) - set(before)))
        if lost:
            raise ValueError(f"no unedited caption of {lost[0]}")
        for key in sorted(before, key=str):
            after = found.get(key, before[key])
            if key not in found and after.found:
                if edit[0] == OUTSIDE:
                    continue
                raise ValueError(f"no caption of {key} at {edit}")
            # Without a direction nothing was edited.
            after = after if after.found else before[key]
            scored.append(
                _score(
                    before[key],
                    after,
                    edit,
                    shown[key[0]],
                    (named[before[key].caption], named[after.caption]),
                    (told[before[key].caption], told[after.caption]),
                )
            )
    return scored


def edit_order(edit: Edit) -> tuple[str, float, tuple[int, ...]]:
    """Return what edits are sorted by: place, coefficient, blocks."""
    return (*edit[:2], edit[2] or ())


def _score(
    before: EditedCaption,
    after: EditedCaption,
    edit: Edit,
    shown: Shown,
    objects: tuple[frozenset[str], frozenset[str]],
    attributes: tuple[frozenset[str], frozenset[str]],
) -> Scored:
    source, target = before.source, before.target
    asked = {source, target}
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
    others, kept = objects[0] - asked, (objects[0] & objects[1]) - asked
    told, still_told = attributes[0] - asked, (attributes[0] & attributes[1]) - asked
    apart = shown.objects | asked
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
        new_details=tuple(sorted(new - asked)),
        score=0 if not done else 1 if new - asked else 2,
        objects_before=len(others),
        objects_kept=len(kept),
        attributes_before=len(told),
        attributes_kept=len(still_told),
        hallucinated_change=len(objects[1] - apart) - len(objects[0] - apart),
        loss_change=float(after.loss_sum - before.loss_sum),
        loss_tokens=before.loss_tokens,
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
