"""How often a text names objects."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable

from pydantic import Field

from vista.judges.words import Phrase, inflections, words
from vista.metrics.figure import Figure
from vista.metrics.result import Estimate, MetricResult


class TextCoverage(MetricResult):
    """Occurrences of object names in a text."""

    min_occurrences: int = Field(description="Occurrences below which a name is rare.")
    documents: int = Field(description="Documents of the text.")
    words: int = Field(description="Words of the text.")
    occurrences: dict[str, int] = Field(description="Occurrences of each name, in any number.")
    covered: Estimate = Field(description="Share of the names that are not rare.")

    @property
    def rare(self) -> dict[str, int]:
        """The names that are rare with their occurrences, the rarest first."""
        rare = ((n, name) for name, n in self.occurrences.items() if n < self.min_occurrences)
        return {name: n for n, name in sorted(rare)}

    def figures(self) -> list[Figure]:
        """Return the share of covered names."""
        return [self.covered.figure("text_coverage")]


def text_coverage(
    names: Iterable[str], documents: Iterable[str], min_occurrences: int
) -> TextCoverage:
    """Count object names in documents, word by word, in singular and plural.

    Where one name begins another at the same place ("hot dog", "hot"), the longer one counts, and
    the words of a name that counted count for no other.
    """
    starts: defaultdict[str, list[tuple[Phrase, str]]] = defaultdict(list)
    occurrences = dict.fromkeys(sorted(names), 0)
    for name in occurrences:
        for phrase in inflections(name):
            starts[phrase[0]].append((phrase, name))
    for phrases in starts.values():
        phrases.sort(key=lambda entry: (-len(entry[0]), entry))
    count: Counter[str] = Counter()
    n_documents = n_words = 0
    for document in documents:
        document_words = words(document)
        n_documents += 1
        n_words += len(document_words)
        at = 0
        while at < len(document_words):
            length, names_here = _longest(document_words, at, starts.get(document_words[at], ()))
            count.update(names_here)
            at += length
    occurrences |= count
    enough = sum(n >= min_occurrences for n in occurrences.values())
    share = enough / len(occurrences) if occurrences else None
    return TextCoverage(
        min_occurrences=min_occurrences,
        documents=n_documents,
        words=n_words,
        occurrences=occurrences,
        covered=Estimate(value=share, n=len(occurrences)),
    )


def _longest(
    document: list[str], at: int, phrases: Iterable[tuple[Phrase, str]]
) -> tuple[int, list[str]]:
    """Return the length of the longest phrase at a place, at least 1, and its names.

    `phrases` are sorted by length, the longest first.
    """
    length, names = 1, list[str]()
    for phrase, name in phrases:
        if names and len(phrase) < length:
            break
        if tuple(document[at : at + len(phrase)]) == phrase:
            length = len(phrase)
            names.append(name)
    return length, names
