"""The concepts that latents of a guided dictionary are defined for, as a file beside the SAE.

Defined latents come first: the latent of a concept has the concept's number. Names come from
annotation that others wrote: escape them before showing them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from vista.errors import UserError, reason_of
from vista.sae.label_table import LatentLabels, plain_text

FILE = "defined.json"
_LONGEST = 300  # characters of a label


@dataclass(frozen=True)
class Concept:
    """What a latent is defined for.

    Attributes:
        name: A class of the data, or the first word of a synset above several.
        synset: Its id in WordNet; None where WordNet lacks the class.
        classes: Classes whose patches have the concept.
        unknown: Left-out classes below it: their patches are not annotated for it.
        above: Numbers of the next concepts that it is a kind of.
    """

    name: str
    synset: str | None
    classes: tuple[str, ...]
    unknown: tuple[str, ...] = ()
    above: tuple[int, ...] = ()


@dataclass(frozen=True)
class Defined:
    """The concepts by latent, the classes that no latent is defined for on purpose, and with how
    many patches each concept was annotated."""

    concepts: tuple[Concept, ...]
    left_out: tuple[str, ...] = ()
    patches: tuple[int, ...] = ()

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """Each concept with each of those right above it: (child, parent)."""
        return [(c, above) for c, concept in enumerate(self.concepts) for above in concept.above]


def write_defined(path: Path, defined: Defined) -> None:
    """Write the concepts as JSON, the same bytes every time."""
    path.write_text(json.dumps(asdict(defined), sort_keys=True, indent=1) + "\n", encoding="utf-8")


def read_defined(path: Path, latents: int) -> Defined:
    """Read what `write_defined` wrote for a dictionary of that many latents.

    Raises:
        UserError: The file is something else, or names more concepts than there are latents.
    """
    try:
        raw: Any = json.loads(path.read_text(encoding="utf-8"))
        concepts = tuple(_concept(entry) for entry in raw["concepts"])
        defined = Defined(concepts, _texts(raw["left_out"]), tuple(map(int, raw["patches"])))
        if not 1 <= len(concepts) <= latents or len(defined.patches) != len(concepts):
            raise ValueError(f"{len(concepts)} concepts for {latents} latents")
        if not all(0 <= above < len(concepts) for _, above in defined.pairs):
            raise ValueError("a concept lies below one that is not there")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(
            f"{path}: not the concepts of a guided dictionary ({reason_of(error)}); train it again"
        ) from error
    return defined


def _concept(entry: dict[str, Any]) -> Concept:
    if set(entry) != {field.name for field in fields(Concept)}:
        raise ValueError(f"a concept has {', '.join(sorted(entry))}")
    synset = entry["synset"]
    if not isinstance(entry["name"], str) or not isinstance(synset, str | None):
        raise ValueError("a name is no text")
    return Concept(
        entry["name"],
        synset,
        _texts(entry["classes"]),
        _texts(entry["unknown"]),
        tuple(map(int, entry["above"])),
    )


def _texts(values: list[Any]) -> tuple[str, ...]:
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise ValueError("a list of names is none")
    return tuple(values)


def with_concepts(
    labels: LatentLabels,
    defined: Defined,
    latents: Sequence[int],
    classes: Sequence[Sequence[str]],
) -> LatentLabels:
    """Return the labels with each defined latent named by its concept, and no free latent by one.

    The share of a defined latent becomes that of its top images that have its concept.

    Args:
        labels: Labels by top images.
        defined: The concepts, of the first latents.
        latents: The latent of each row of the table of top images.
        classes: The classes at the place of that row.
    """
    names = [plain_text(concept.name, _LONGEST) for concept in defined.concepts]
    free = (None if label in set(names) else label for label in labels.label_s[len(names) :])
    share_s = np.array(labels.share_s, dtype=np.float32)
    hits, rows = np.zeros(len(names)), np.zeros(len(names))
    for latent, shown in zip(latents, classes, strict=True):
        if latent < len(names):
            concept = defined.concepts[latent]
            rows[latent] += 1
            hits[latent] += not set(shown).isdisjoint((*concept.classes, *concept.unknown))
    share_s[: len(names)] = hits / np.maximum(rows, 1)
    return replace(labels, label_s=(*names, *free), share_s=share_s)
