"""WordNet's nouns: what a word means, and what that is a kind of.

Read from WordNet's own database files (Fellbaum 1998; their format: `man 5 wndb`), which Debian's
wordnet-base and nltk's corpus `wordnet` hold, or from the small table that is shipped: the drawn
world's nouns and digits with all that WordNet 3.0 has above them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import TypeVar

from vista.errors import UserError, reason_of

SHIPPED = Path(__file__).with_name("wordnet_drawn.json")
SYNSET = re.compile(r"n\d{8}")

_T = TypeVar("_T")
_HYPERNYM = ("@", "@i")  # a kind of, an instance of
# How WordNet's own search finds a plural's singular.
_ENDINGS = (
    *(("s", ""), ("ses", "s"), ("xes", "x"), ("zes", "z"), ("ches", "ch"), ("shes", "sh")),
    *(("men", "man"), ("ies", "y")),
)


@dataclass(frozen=True)
class WordNet:
    """Synsets, called as in ImageNet: n and the eight digits of their offset.

    hypernyms: synset -> what it is a kind or an instance of; names: synset -> its first word;
    senses: word in lower case, `_` for a space -> its most frequent synset; source: for messages.
    """

    hypernyms: Mapping[str, tuple[str, ...]]
    names: Mapping[str, str]
    senses: Mapping[str, str]
    source: Path

    def synset(self, name: str) -> str | None:
        """The most frequent synset of a noun, in singular or plural, or the one with this id."""
        if SYNSET.fullmatch(name):
            return name if name in self.names else None
        word = "_".join(name.lower().split())
        forms = [word, word.replace("-", "_")]
        forms += [word.removesuffix(end) + new for end, new in _ENDINGS if word.endswith(end)]
        return next((self.senses[form] for form in forms if form in self.senses), None)

    def above(self, synsets: Iterable[str]) -> dict[str, tuple[str, ...]]:
        """These synsets and all above them, each after its hypernyms, which it is given with.

        Raises:
            UserError: A synset is not there, or lies above itself.
        """
        hypernyms: dict[str, tuple[str, ...]] = {}
        waiting = sorted(set(synsets))
        for synset in waiting:  # grows on the way
            if synset in hypernyms:
                continue
            if synset not in self.hypernyms:
                raise UserError(
                    f"{self.source} has no synset {synset}; take files of one version, or another "
                    "id in probing.ontology.senses"
                )
            hypernyms[synset] = self.hypernyms[synset]
            waiting += hypernyms[synset]
        try:
            order = list(TopologicalSorter(hypernyms).static_order())
        except CycleError as error:
            raise UserError(f"{self.source}: {error.args[1][0]} lies above itself") from error
        return {synset: hypernyms[synset] for synset in order}


def load_wordnet(folder: str | None) -> WordNet:
    """Read the database files in `folder`, or the shipped table where it is None.

    Raises:
        UserError: A file is missing, or not as WordNet's database has it.
    """
    if folder is None:
        table = json.loads(SHIPPED.read_text(encoding="utf-8"))
        hypernyms = {synset: tuple(above) for synset, (_, *above) in table["synsets"].items()}
        names = {synset: name for synset, (name, *_) in table["synsets"].items()}
        return WordNet(hypernyms, names, table["senses"], SHIPPED)
    data, index = Path(folder) / "data.noun", Path(folder) / "index.noun"
    synsets = dict(_parsed(data, _synset))
    senses = dict(_parsed(index, _first_sense))
    if (
        lost := next((synset for synset in senses.values() if synset not in synsets), None)
    ) is not None:
        raise UserError(f"{index} names {lost}, which {data} lacks; take files of one version")
    return WordNet(
        {synset: above for synset, (_, above) in synsets.items()},
        {synset: name for synset, (name, _) in synsets.items()},
        senses,
        data,
    )


def _parsed(path: Path, parse: Callable[[list[str]], _T]) -> Iterator[_T]:
    """Parse the fields of each line. Lines of the licence, which opens a file, begin blank."""
    try:
        with path.open(encoding="utf-8-sig", errors="replace") as lines:
            for number, line in enumerate(lines, 1):
                if line.startswith(" ") or not line.strip():
                    continue
                try:
                    yield parse(line.split(" | ", 1)[0].split())
                except (ValueError, IndexError) as error:
                    raise UserError(
                        f"{path}, line {number} is not as WordNet's database has it (man wndb); "
                        "install wordnet-base and set probing.ontology.wordnet: /usr/share/wordnet"
                    ) from error
    except OSError as error:
        raise UserError(
            f"probing.ontology.wordnet: {path} cannot be read ({reason_of(error)}); name a folder "
            "with data.noun and index.noun, such as /usr/share/wordnet of Debian's wordnet-base"
        ) from error


def _synset(fields: list[str]) -> tuple[str, tuple[str, tuple[str, ...]]]:
    """offset file type words(hex) {word id} pointers {symbol offset pos source-target}"""
    pointers = 4 + 2 * int(fields[3], 16)
    first, count = pointers + 1, int(fields[pointers])
    if len(fields) != first + 4 * count:
        raise ValueError("pointers are missing")
    above = [
        _id(fields[at + 1])
        for at in range(first, len(fields), 4)
        if fields[at] in _HYPERNYM and fields[at + 2] == "n"
    ]
    return _id(fields[0]), (fields[4], tuple(above))


def _first_sense(fields: list[str]) -> tuple[str, str]:
    """word pos senses kinds {kind} senses tagged {offset}, the most frequent sense first"""
    senses, first = int(fields[2]), 6 + int(fields[3])
    if senses < 1 or len(fields) != first + senses:
        raise ValueError("senses are missing")
    return fields[0], _id(fields[first])


def _id(offset: str) -> str:
    if not SYNSET.fullmatch(f"n{offset}"):
        raise ValueError("no offset")
    return f"n{offset}"
