"""Word-level judges: a text names an object if it holds one of the object's words.

Texts are compared word by word, never letter by letter: "cat" is not in "category". Singular and
plural count as the same word.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from vista.judges.synonyms import SYNONYMS

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


def inflections(name: str) -> set[Phrase]:
    """Return the word sequences that stand for `name` in singular and plural.

    The last word is inflected ("hot dog" -> "hot dogs"). Empty for a name without any word.
    """
    name_words = words(name)
    if not name_words:
        return set()
    *first, last = name_words
    return {(*first, form) for form in {last} | plurals(last) | _singulars(last)}


class WholeWordJudge:
    """Strict: the object's own name as whole words, singular or plural, no synonyms.

    This is how the VISTA paper picks the latents of its pointing game (arXiv 2605.24946).
    """

    name = "whole_word"

    def judge(self, texts: Sequence[str | None], objects: Sequence[str]) -> NDArray[np.bool_]:
        """Return [texts, objects]: True where the text holds the object's name."""
        phrases = _phrase_table({name: [name] for name in objects})
        longest = max(map(len, phrases), default=0)
        column = _columns(objects)
        named = np.zeros((len(texts), len(objects)), dtype=bool)
        for i, text in enumerate(texts):
            text_words = words(text or "")
            for start in range(len(text_words)):
                for size in range(1, longest + 1):
                    for name in phrases.get(tuple(text_words[start : start + size]), ()):
                        named[i, column[name]] = True
        return named


class LexicalJudge:
    """Names and synonyms as whole words; the longest phrase wins, so a "hot dog" is no dog.

    Args:
        synonyms: Object name -> other words for it; the table that ships with the package
            (`vista.judges.synonyms`) if not given.
    """

    name = "lexical"

    def __init__(self, synonyms: Mapping[str, Sequence[str]] = SYNONYMS) -> None:
        self._synonyms = {
            _key(name): tuple(others) for name, others in synonyms.items() if _key(name)
        }

    def judge(self, texts: Sequence[str | None], objects: Sequence[str]) -> NDArray[np.bool_]:
        """Return [texts, objects]: True where the text holds a word for the object."""
        # Phrases of absent objects take part too: "teddy bear" must not be read as a bear only
        # because no teddy bear was asked for.
        names = {name: [name] for name in self._synonyms} | {name: [name] for name in objects}
        for name in names:
            names[name] = [name, *self._synonyms.get(_key(name), ())]
        phrases = _phrase_table(names)
        longest = max(map(len, phrases), default=0)
        column = _columns(objects)
        named = np.zeros((len(texts), len(objects)), dtype=bool)
        for i, text in enumerate(texts):
            for name in _longest_matches(words(text or ""), phrases, longest):
                for j in column.get(name, ()):
                    named[i, j] = True
        return named


def _longest_matches(
    text_words: list[str], phrases: Mapping[Phrase, set[str]], longest: int
) -> set[str]:
    found: set[str] = set()
    start = 0
    while start < len(text_words):
        for size in range(min(longest, len(text_words) - start), 0, -1):
            names = phrases.get(tuple(text_words[start : start + size]))
            if names:
                found |= names
                start += size
                break
        else:
            start += 1
    return found


def _phrase_table(names: Mapping[str, Iterable[str]]) -> dict[Phrase, set[str]]:
    table: dict[Phrase, set[str]] = {}
    for name, spellings in names.items():
        for spelling in spellings:
            for phrase in inflections(spelling):
                table.setdefault(phrase, set()).add(name)
    return table


def _columns(objects: Sequence[str]) -> dict[str, list[int]]:
    column: dict[str, list[int]] = {}
    for j, name in enumerate(objects):
        column.setdefault(name, []).append(j)
    return column


def _key(name: str) -> str:
    return " ".join(words(name))
