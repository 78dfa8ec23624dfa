"""Words, plurals and phrases: what the word-level judges compare.

Texts are compared word by word, never letter by letter: "cat" is not in "category". Singular and
plural count as the same word.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence

Phrase = tuple[str, ...]

_WORD = re.compile(r"[^\W_]+")
_POSSESSIVE = re.compile(r"(?<=\w)['’]s\b")

_IRREGULAR_PLURALS: dict[str, tuple[str, ...]] = {
    "person": ("people", "persons"),
    "child": ("children",),
    "mouse": ("mice",),
    "louse": ("lice",),
    "goose": ("geese",),
    "foot": ("feet",),
    "tooth": ("teeth",),
    "ox": ("oxen",),
    "die": ("dice",),
    "man": ("men",),
    "woman": ("women",),
    "cactus": ("cacti", "cactuses"),
    "octopus": ("octopi", "octopuses"),
    "ski": ("skis",),
    "quiz": ("quizzes",),
}
_IRREGULAR_SINGULARS = {
    plural: singular for singular, plurals in _IRREGULAR_PLURALS.items() for plural in plurals
}
# Compounds take the plural of their last part: snowmen, goldfish.
_COMPOUND_ENDINGS = ("woman", "man", "child", "mouse", "foot", "tooth")
_SAME_IN_PLURAL = ("sheep", "deer", "fish", "series", "aircraft", "moose", "bison", "salmon")

# They are no plurals of new, doe, mean.
_NO_PLURALS = ("news", "does", "means")


def words(text: str) -> list[str]:
    """Split a text into lower-case words; hyphens and underscores separate, 's is dropped."""
    plain = unicodedata.normalize("NFKC", text).casefold()
    return _WORD.findall(_POSSESSIVE.sub("", plain))


def plurals(word: str) -> set[str]:
    """Return the spellings that the plural of a singular noun may have.

    Where English leaves a choice (roofs, hooves; photos, potatoes) both spellings are returned: a
    spelling that nobody uses does no harm to a comparison.
    """
    if word in _IRREGULAR_PLURALS:
        return set(_IRREGULAR_PLURALS[word])
    if word.endswith(_SAME_IN_PLURAL):
        return {word, word + "s", word + "es"} if word.endswith("fish") else {word}
    for ending in _COMPOUND_ENDINGS:
        if word.endswith(ending):
            stem = word[: -len(ending)]
            return {stem + plural for plural in _IRREGULAR_PLURALS[ending]} | {word + "s"}
    if word.endswith(("s", "x", "z", "ch", "sh")):
        return {word + "es"}
    if word.endswith("y") and len(word) > 1 and word[-2] not in "aeiou":
        return {word[:-1] + "ies"}
    if word.endswith("fe"):
        return {word[:-2] + "ves", word + "s"}
    if word.endswith("f"):
        return {word[:-1] + "ves", word + "s"}
    if word.endswith("o"):
        return {word + "s", word + "es"}
    return {word + "s"}


def _singulars(word: str) -> set[str]:
    """Return the singular of a noun whose name is a plural (skis, scissors); else nothing."""
    if word in _IRREGULAR_SINGULARS:
        return {_IRREGULAR_SINGULARS[word]}
    # bus, cactus, glass and tennis end in s and are no plurals.
    if len(word) < 4 or not word.endswith("s") or word.endswith(("ss", "us", "is")):
        return set()
    if word.endswith("ies"):
        return {word[:-3] + "y", word[:-1]}
    if word.endswith(("ses", "xes", "zes", "ches", "shes")):
        return {word[:-2], word[:-1]}
    return {word[:-1]}


def singulars(names: Iterable[str]) -> dict[str, str]:
    """Return the singular of each of `names` that is the plural of another one of them.

    Both forms must be there, so that a word that only looks like a plural stays as it is.
    """
    known = set(names)
    return {
        name: min(forms)
        for name in known
        if len(name) > 3
        and name not in _NO_PLURALS
        and (forms := {form for form in _singulars(name) & known if name in plurals(form)})
    }


def inflections(name: str) -> set[Phrase]:
    """Return the word sequences that stand for `name` in singular and plural.

    The last word is inflected ("hot dog" -> "hot dogs"). Empty for a name without any word.
    """
    name_words = words(name)
    if not name_words:
        return set()
    *first, last = name_words
    return {(*first, form) for form in {last} | plurals(last) | _singulars(last)}


def phrase_table(names: Mapping[str, Iterable[str]]) -> dict[Phrase, set[str]]:
    """Return the word sequences that stand for each name: name -> its spellings, inflected."""
    table: dict[Phrase, set[str]] = {}
    for name, spellings in names.items():
        for spelling in spellings:
            for phrase in inflections(spelling):
                table.setdefault(phrase, set()).add(name)
    return table


def columns(objects: Sequence[str]) -> dict[str, list[int]]:
    """Return the positions of each name among the objects asked for."""
    column: dict[str, list[int]] = {}
    for j, name in enumerate(objects):
        column.setdefault(name, []).append(j)
    return column
