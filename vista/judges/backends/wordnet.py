"""Synonyms of nouns out of WordNet's own files, as Debian and NLTK install them.

Format (wndb(5WN)): a line of index.noun is `lemma n synsets pointers... senses tagged offset...`,
senses by falling frequency; a line of data.noun, found by its byte offset, is
`offset file type words word id word id ...` with the number of words in hexadecimal.
"""

from __future__ import annotations

from pathlib import Path

from vista.errors import UserError


class WordNet:
    """The nouns of a WordNet installation. Raises UserError where the folder has none.

    Args:
        folder: Holds index.noun and data.noun.
        senses: How many senses of a noun count, most frequent first.
    """

    def __init__(self, folder: str, senses: int = 1) -> None:
        self._senses = senses
        self._folder = Path(folder)
        try:
            index = (self._folder / "index.noun").read_text(encoding="utf-8")
            self._data = (self._folder / "data.noun").read_bytes()
        except (OSError, UnicodeDecodeError) as error:
            raise self._unusable() from error
        # The licence at the top stands on lines that open with blanks.
        self._entry = {
            line.partition(" ")[0]: line for line in index.splitlines() if line[:1].strip()
        }

    def synonyms(self, name: str) -> tuple[str, ...]:
        """Return the other words of a noun's senses, in WordNet's order; none if it is unknown."""
        entry = self._entry.get("_".join(name.casefold().split()))
        if entry is None:
            return ()
        try:
            fields = entry.split()
            offsets = fields[-int(fields[2]) :][: self._senses]
            found = [word for offset in offsets for word in self._words(int(offset))]
        except (ValueError, IndexError) as error:
            raise self._unusable() from error
        return tuple(dict.fromkeys(word for word in found if word.casefold() != name.casefold()))

    def _words(self, offset: int) -> list[str]:
        fields = self._data[offset : self._data.index(b"\n", offset)].decode().split()
        if int(fields[0]) != offset:
            raise ValueError("the index is of another file")
        return [word.replace("_", " ") for word in fields[4 : 4 + 2 * int(fields[3], 16) : 2]]

    def _unusable(self) -> UserError:
        return UserError(
            f"judge.wordnet: {self._folder} holds no usable index.noun and data.noun; install "
            "WordNet (Debian: wordnet-base), correct the folder, or leave the key out"
        )
