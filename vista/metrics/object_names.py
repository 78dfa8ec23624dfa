"""Names of objects: which images have them, and which latents are labelled with one.

Suffixes: b images, c categories, s latents.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vista.judges.words import inflections, words

BoolArray = NDArray[np.bool_]


def presence(objects: Sequence[Sequence[str]]) -> tuple[list[str], BoolArray]:
    """Return all categories, sorted, and which of them each image has, [b, c]."""
    categories = sorted({name for image in objects for name in image})
    column = {name: c for c, name in enumerate(categories)}
    present_bc = np.zeros((len(objects), len(categories)), dtype=bool)
    for b, image in enumerate(objects):
        present_bc[b, [column[name] for name in image]] = True
    return categories, present_bc


def noun_latents(labels: Sequence[str | None], nouns: Sequence[str]) -> BoolArray:
    """Return which latents' label is one of `nouns`, in singular or plural, [s]."""
    phrases = {phrase for noun in nouns for phrase in inflections(noun)}
    return np.array([tuple(words(label or "")) in phrases for label in labels], dtype=bool)
