"""The word-level judge: names and synonyms, singular and plural."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from vista.config.judge_base import JudgeSettings
from vista.errors import UserError
from vista.foreign.wordnet import read_nouns
from vista.judges import Resources
from vista.judges.synonyms import SYNONYMS
from vista.judges.words import Phrase, columns, phrase_table, words

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Settings(JudgeSettings):
    """Names and synonyms as whole words, singular or plural."""

    kind: Literal["lexical"] = "lexical"
    wordnet: str | None = Field(
        None,
        description="Folder with WordNet's index.noun and data.noun, whose synonyms are taken "
        'beside the shipped ones: Debian\'s wordnet-base has "/usr/share/wordnet". Null: the '
        "shipped table alone, so that a result never depends on what is installed.",
    )
    senses: int = Field(
        1, ge=1, description="Senses of a name, most frequent first, whose synonyms count."
    )

    @property
    def files(self) -> tuple[str, ...]:
        """WordNet's files, where it reads them."""
        names = ("index", "data") if self.wordnet is not None else ()
        return tuple(f"{self.wordnet}/{name}.noun" for name in names)


class LexicalJudge:
    """Names and synonyms as whole words; the longest phrase wins, so a "hot dog" is no dog.

    Args:
        synonyms: Object name -> other words for it; the table that ships with the package
            (`vista.judges.synonyms`) if not given.
        further: Further words for a name that was asked for, from a larger source than a table.
    """

    name = "lexical"
    looks = False

    def __init__(
        self,
        synonyms: Mapping[str, Sequence[str]] = SYNONYMS,
        further: Callable[[str], Sequence[str]] = lambda name: (),
    ) -> None:
        self._further = further
        self._synonyms = {
            _key(name): tuple(others) for name, others in synonyms.items() if _key(name)
        }

    def judge(self, texts: Sequence[str | None], objects: Sequence[str]) -> NDArray[np.bool_]:
        """Return [texts, objects]: True where the text holds a word for the object."""
        import numpy as np

        # Phrases of absent objects take part too: "teddy bear" must not be read as a bear only
        # because no teddy bear was asked for.
        names = {name: [name] for name in self._synonyms} | {name: [name] for name in objects}
        for name in names:
            names[name] = [name, *self._synonyms.get(_key(name), ())]
        for name in set(objects):
            names[name] += self._further(name)
        phrases = phrase_table(names)
        longest = max(map(len, phrases), default=0)
        column = columns(objects)
        named = np.zeros((len(texts), len(objects)), dtype=bool)
        for i, text in enumerate(texts):
            for name in _longest_matches(words(text or ""), phrases, longest):
                for j in column.get(name, ()):
                    named[i, j] = True
        return named


def create(settings: Settings, resources: Resources) -> LexicalJudge:
    """Return the judge, with WordNet's synonyms where the settings say so.

    Raises:
        UserError: WordNet is not where the settings say.
    """
    if settings.wordnet is None:
        return LexicalJudge()
    return LexicalJudge(further=wordnet_synonyms(settings.wordnet, settings.senses))


def wordnet_synonyms(folder: str, most_senses: int) -> Callable[[str], Sequence[str]]:
    """Return a function from a noun to the other words of its `most_senses` most frequent senses.

    The words are in WordNet's order; an unknown noun has none.

    Raises:
        UserError: The folder does not hold WordNet's nouns.
    """
    try:
        synsets, senses = read_nouns(folder, "judge.wordnet")
    except UserError as error:
        raise UserError(
            f"judge.wordnet: {folder} holds no usable index.noun and data.noun; install "
            "WordNet (Debian: wordnet-base), correct the folder, or leave the key out"
        ) from error

    def synonyms(name: str) -> Sequence[str]:
        ids = senses.get("_".join(name.casefold().split()), ())[:most_senses]
        words_of = (word.replace("_", " ") for synset in ids for word in synsets[synset].words)
        return [word for word in dict.fromkeys(words_of) if word.casefold() != name.casefold()]

    return synonyms


def _longest_matches(
    text_words: list[str], phrases: Mapping[Phrase, set[str]], longest: int
) -> set[str]:
    matches: set[str] = set()
    start = 0
    while start < len(text_words):
        for size in range(min(longest, len(text_words) - start), 0, -1):
            names = phrases.get(tuple(text_words[start : start + size]))
            if names:
                matches |= names
                start += size
                break
        else:
            start += 1
    return matches


def _key(name: str) -> str:
    return " ".join(words(name))
