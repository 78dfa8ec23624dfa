"""WordNet's nouns: what a word means, and what that is a kind of.

Read from WordNet's own database files (`vista.foreign.wordnet`), or from the small table that is
shipped: the drawn world's nouns and digits with all that WordNet 3.0 has above them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

from vista.errors import UserError
from vista.foreign.wordnet import SYNSET, read_nouns

SHIPPED = Path(__file__).with_name("wordnet_drawn.json")
# How WordNet's own search finds a plural's singular.
_ENDINGS = (
    *(("s", ""), ("ses", "s"), ("xes", "x"), ("zes", "z"), ("ches", "ch"), ("shes", "sh")),
    *(("men", "man"), ("ies", "y")),
)


@dataclass(frozen=True)
class WordNet:
    """Synsets, with ids as in ImageNet: n and the eight digits of the offset.

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
        """The hypernyms of these synsets and of all above them; a synset comes after its hypernyms.

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
    synsets, senses = read_nouns(folder, "probing.ontology.wordnet")
    return WordNet(
        {synset: entry.hypernyms for synset, entry in synsets.items()},
        {synset: entry.words[0] for synset, entry in synsets.items()},
        {word: ids[0] for word, ids in senses.items()},
        Path(folder) / "data.noun",
    )
