"""The concepts of a guided dictionary, and the annotation of patches with them.

A concept is a class of the data or a synset of WordNet above several classes; a patch that has a
concept has all that the concept is a kind of (the true-path rule of annotation with an ontology).

Shape legend: b image, p patch, u kind of patch, m concept.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from vista.config.guided import GuideSettings
from vista.data.wordnet import WordNet
from vista.errors import UserError
from vista.sae.defined import Concept

# Of a patch and a concept: whether the patch has it.
UNKNOWN, ABSENT, PRESENT = -1, 0, 1

ClassesAt = Callable[[int], Callable[[int], Collection[str]]]


def chosen_classes(
    settings: GuideSettings, known: Collection[str], seed: int, key: str
) -> tuple[list[str], list[str]]:
    """Return the classes that latents are defined for, and those that are left out, both sorted.

    Args:
        settings: Which classes, and how many of them are left out.
        known: The classes of the images that are learnt from.
        seed: Seed of those that are left out.
        key: Where the settings stand in the config, for messages.

    Raises:
        UserError: A concept is no class of these images, or none is left.
    """
    names = sorted(known if settings.concepts is None else settings.concepts)
    if unknown := sorted(set(names) - set(known)):
        raise UserError(
            f"{key}.concepts names {unknown[0]!r}, which no image that is learnt from shows; "
            "remove it, or write it as the data does"
        )
    if settings.left_out >= len(names):
        raise UserError(
            f"{key}.left_out is {settings.left_out} of {len(names)} classes, which leaves no "
            "concept to define; lower it, or take data with annotated objects"
        )
    drawn = np.random.default_rng(seed).permutation(len(names))[: settings.left_out]
    left_out = {names[i] for i in drawn.tolist()}
    return [name for name in names if name not in left_out], sorted(left_out)


def synsets_of(
    classes: Iterable[str], senses: Mapping[str, str], wordnet: WordNet, key: str
) -> dict[str, str]:
    """Return the synset of each class that WordNet has.

    Raises:
        UserError: `senses` names a synset that WordNet lacks.
    """
    synsets = {name: senses.get(name) or wordnet.synset(name) for name in classes}
    for name, synset in synsets.items():
        if synset is not None and synset not in wordnet.hypernyms:
            raise UserError(
                f"{key}.senses gives {name!r} the synset {synset}, which {wordnet.source} lacks; "
                "take another id, or WordNet's files of its version"
            )
    return {name: synset for name, synset in synsets.items() if synset is not None}


def concepts_of(
    classes: Sequence[str],
    left_out: Sequence[str],
    synset_of: Mapping[str, str],
    wordnet: WordNet,
    hypernyms: bool,
) -> tuple[Concept, ...]:
    """Return the classes as concepts, in their order, then those above them, fewest classes first.

    Of several synsets above the same classes the lowest counts. Classes that are left out make no
    concept; the concepts above them do not know their patches.

    Args:
        classes: Names of the classes that are defined.
        left_out: Names of classes that are not.
        synset_of: The synset of each class that WordNet has.
        wordnet: Where hypernyms are read from.
        hypernyms: Whether synsets above at least two of `classes`, and not all, are concepts.
    """
    above = wordnet.above(synset_of.values())
    # By synset the classes at and below it; a synset comes after its hypernyms.
    below: dict[str, set[str]] = {synset: set() for synset in above}
    for name, synset in synset_of.items():
        below[synset].add(name)
    for synset in reversed(list(above)):
        for hypernym in above[synset]:
            below[hypernym] |= below[synset]
    defined, silent = set(classes), set(left_out)
    own: dict[str, str] = {}  # synset -> the first class that has it
    for name in classes:
        if name in synset_of:
            own.setdefault(synset_of[name], name)
    concepts = []
    for name in classes:
        sense = synset_of.get(name)
        kinds = below[sense] if sense and own[sense] == name else set()
        concepts.append(_concept(name, sense, kinds | {name}, defined, silent))
    if hypernyms:
        lowest: dict[frozenset[str], str] = {}
        for synset in above:  # the lowest of a chain is met last
            under = frozenset(below[synset] & defined)
            if synset not in own and 2 <= len(under) < len(defined):
                lowest[under] = synset
        # A class may hold the same classes: it is that concept then.
        held = {frozenset(concept.classes) for concept in concepts}
        order = sorted(lowest, key=lambda under: (len(under), lowest[under]))
        concepts += [
            _concept(
                wordnet.names[lowest[under]], lowest[under], below[lowest[under]], defined, silent
            )
            for under in order
            if under not in held
        ]
    return _ordered(concepts, above)


def _concept(
    name: str, synset: str | None, under: Collection[str], defined: set[str], silent: set[str]
) -> Concept:
    return Concept(
        name.replace("_", " ") if name not in defined else name,
        synset,
        tuple(sorted(defined.intersection(under))),
        tuple(sorted(silent.intersection(under))),
    )


def _ordered(
    concepts: Sequence[Concept], hypernyms: Mapping[str, Sequence[str]]
) -> tuple[Concept, ...]:
    """Return the concepts, each with the next ones that it is a kind of."""
    number: dict[str, int] = {}
    for c, concept in enumerate(concepts):
        if concept.synset is not None:
            number.setdefault(concept.synset, c)
    # All synsets above each, itself not among them; a synset comes after its hypernyms.
    reached: dict[str, set[str]] = {}
    for synset, up in hypernyms.items():
        reached[synset] = set(up).union(*(reached[each] for each in up))
    linked = []
    for c, concept in enumerate(concepts):
        if concept.synset is None or number[concept.synset] != c:
            linked.append(concept)
            continue
        higher = {synset for synset in reached[concept.synset] if synset in number}
        further = set().union(*(reached[synset] for synset in higher))
        linked.append(
            replace(concept, above=tuple(sorted(number[synset] for synset in higher - further)))
        )
    return tuple(linked)


@dataclass(frozen=True)
class Annotation:
    """Which concepts the patches of some images have.

    Attributes:
        kind_bp: The kind of each patch: a row of `concepts_um`.
        concepts_um: PRESENT, ABSENT or UNKNOWN; row 0 is unknown throughout.
    """

    kind_bp: NDArray[np.int32]
    concepts_um: NDArray[np.int8]

    def patches(self) -> NDArray[np.int64]:
        """Return how many patches have each concept [m]."""
        count_u = np.bincount(self.kind_bp.reshape(-1), minlength=len(self.concepts_um))
        counts_m: NDArray[np.int64] = count_u @ (self.concepts_um == PRESENT).astype(np.int64)
        return counts_m

    def shuffled(self, rng: np.random.Generator) -> Annotation:
        """Return the same rows, permuted among all patches that are annotated."""
        kinds = self.kind_bp.copy().reshape(-1)
        annotated = np.flatnonzero(kinds > 0)
        kinds[annotated] = kinds[rng.permutation(annotated)]
        return Annotation(kinds.reshape(self.kind_bp.shape), self.concepts_um)


def annotate(
    concepts: Sequence[Concept],
    images: NDArray[np.int64],
    n_patches: int,
    classes_at: ClassesAt,
    annotated: Collection[int] | None = None,
) -> Annotation:
    """Return the annotation of images [b] with concepts [m].

    A patch with a class of a concept has it; one that has only classes that the concept does not
    know is unknown; all others lack it, the background too.

    Args:
        concepts: The concepts.
        images: Rows of the feature store.
        n_patches: Tokens of an image.
        classes_at: Gives the classes of each patch of an image.
        annotated: The images whose annotation is read; None: all.
    """
    rows: list[NDArray[np.int8]] = [np.full(len(concepts), UNKNOWN, np.int8)]
    number: dict[tuple[str, ...], int] = {}
    kind_bp = np.zeros((len(images), n_patches), np.int32)
    for b, image in enumerate(images.tolist()):
        if annotated is not None and image not in annotated:
            continue
        classes_of = classes_at(image)
        for p in range(n_patches):
            classes = tuple(sorted(classes_of(p)))
            if classes not in number:
                number[classes] = len(rows)
                rows.append(_row(concepts, classes))
            kind_bp[b, p] = number[classes]
    return Annotation(kind_bp, np.stack(rows))


def _row(concepts: Sequence[Concept], classes: tuple[str, ...]) -> NDArray[np.int8]:
    row = np.full(len(concepts), ABSENT, np.int8)
    for c, concept in enumerate(concepts):
        if not set(classes).isdisjoint(concept.classes):
            row[c] = PRESENT
        elif not set(classes).isdisjoint(concept.unknown):
            row[c] = UNKNOWN
    return row
