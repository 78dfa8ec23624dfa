"""Attribute values that a text names, by its words alone, and templates around a text."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from vista.config.data import SPLITS, Split
from vista.config.diffusion import CAPTION, DRAWN_ATTRIBUTES
from vista.data.scenes import COLOURS, GROUNDS


def drawn_attributes(nouns: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """The attributes of the drawn world's scenes of one object."""
    places = ("top", "bottom"), ("left", "right")
    values = (COLOURS, GROUNDS, *places, tuple(sorted(nouns)))
    return dict(zip(DRAWN_ATTRIBUTES, values, strict=True))


def words_of(text: str) -> list[str]:
    """The words of a text, in lower case."""
    return re.findall(r"\w+", text.lower())


def value_in(text: str, values: Iterable[str]) -> str | None:
    """The one value that the text has as a word; None where it has none, or two."""
    words = set(words_of(text))
    present = [value for value in values if value in words]
    return present[0] if len(present) == 1 else None


def frequent_values(texts: Sequence[str], values: Iterable[str], most: int) -> list[str]:
    """The values that most texts have, at most so many; of equal ones the first by name."""
    known = tuple(values)
    counts = Counter(value for text in texts if (value := value_in(text, known)) is not None)
    return sorted(counts, key=lambda value: (-counts[value], value))[:most]


def with_value(text: str, values: Iterable[str], target: str) -> str:
    """The text with its value replaced by `target`, and the article before it to match."""
    old = value_in(text, values)
    if old is None:
        return text
    article = "an " if target[0] in "aeiou" else "a "
    place = re.compile(rf"\b(an? )?{re.escape(old)}\b", re.IGNORECASE)
    return place.sub(lambda match: (article if match[1] else "") + target, text, count=1)


def in_templates(captions: Sequence[str], templates: Sequence[str], split: Split) -> list[str]:
    """Each caption of a split in a template drawn for it, its full stop behind all."""
    rng = np.random.default_rng(SPLITS.index(split))
    drawn = rng.integers(len(templates), size=len(captions)).tolist()
    return [_in_template(text, templates[k]) for text, k in zip(captions, drawn, strict=True)]


def _in_template(caption: str, template: str) -> str:
    sentence = caption.rstrip(" .")
    return template.replace(CAPTION, sentence) + caption[len(sentence) :] if sentence else caption
