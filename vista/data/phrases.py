"""Nouns in English phrases: articles, and nouns that take none."""

from __future__ import annotations

# Nouns that end in s and are singular, besides those in -ss, -us and -is.
_SINGULAR = frozenset({"atlas", "canvas", "christmas", "gas", "lens", "pancreas"})
# Common nouns without a plural: "broccoli on grass", not "a broccoli".
_UNCOUNTED = frozenset(
    {
        *("bread", "broccoli", "butter", "cheese", "coffee", "corn", "fire", "fog", "food"),
        *("garlic", "ginger", "grass", "gravel", "lavender", "lettuce", "meat", "milk", "money"),
        *("pasta", "rice", "salt", "sand", "smoke", "snow", "sugar", "thyme", "water", "wood"),
    }
)
# Vowels that sound like consonants (a unicorn), and consonants that are silent (an hour).
_LIKE_CONSONANTS = ("eu", "one", "ukulele", "uni", "use", "usu", "uti")
_SILENT = ("heir", "honest", "honor", "honour", "hour")


def is_plural(noun: str) -> bool:
    """Whether a noun, or the last word of a compound, is a plural such as scissors, by its end."""
    last = (noun.lower().split() or [""])[-1]
    return last.endswith("s") and not last.endswith(("ss", "us", "is")) and last not in _SINGULAR


def with_article(noun: str) -> str:
    """The noun with its indefinite article; plurals and nouns without a plural have none."""
    word = noun.lower()
    if is_plural(noun) or (word.split() or [""])[-1] in _UNCOUNTED:
        return noun
    vowel = word.startswith(("a", "e", "i", "o", "u")) and not word.startswith(_LIKE_CONSONANTS)
    return f"{'an' if vowel or word.startswith(_SILENT) else 'a'} {noun}"
