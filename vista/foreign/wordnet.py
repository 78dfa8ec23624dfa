"""WordNet's database: data.noun and index.noun, and the glosses of data.verb, data.adj, data.adv.

Fellbaum 1998; format: `man 5 wndb`.

Debian's wordnet-base and nltk's corpus `wordnet` hold these files.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, TypeVar

from vista.errors import UserError, reason_of

SYNSET = re.compile(r"n\d{8}")

_T = TypeVar("_T")
_HYPERNYM = ("@", "@i")  # a kind of, an instance of
_PLACE = re.compile(r"\((a|p|ip)\)$")  # where an adjective may stand: galore(ip)


class Synset(NamedTuple):
    """One meaning: its words (`_` for a space) and the ids of its hypernyms."""

    words: tuple[str, ...]
    hypernyms: tuple[str, ...]


def read_nouns(folder: str, key: str) -> tuple[dict[str, Synset], dict[str, tuple[str, ...]]]:
    """Read the synsets by id, and the ids of each word's senses, the most frequent first.

    An id is ImageNet's: n and the eight digits of the synset's offset. A word is in lower case,
    with `_` for a space. `key` is the setting that names the folder, for messages.

    Raises:
        UserError: A file is missing or not in WordNet's format, or the two do not fit.
    """
    data, index = Path(folder) / "data.noun", Path(folder) / "index.noun"
    synsets = dict(_parsed(data, _synset, key))
    senses = dict(_parsed(index, _senses, key))
    missing = (synset for ids in senses.values() for synset in ids if synset not in synsets)
    if (first := next(missing, None)) is not None:
        raise UserError(f"{index} names {first}, which {data} lacks; take files of one version")
    return synsets, senses


def read_glosses(path: Path, key: str) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield the words (`_` for a space) and the gloss of each synset of a data file.

    A gloss is a definition, often with examples in quotation marks. `key` is as of `read_nouns`.

    Raises:
        UserError: The file is missing or not in WordNet's format.
    """
    yield from _parsed(path, _gloss, key)


def _parsed(path: Path, parse: Callable[[list[str], str], _T], key: str) -> Iterator[_T]:
    """Parse the fields of each line, and what follows ` | `, but for the licence at the top: its
    lines begin blank."""
    try:
        with path.open(encoding="utf-8-sig", errors="replace") as lines:
            for number, line in enumerate(lines, 1):
                if line.startswith(" ") or not line.strip():
                    continue
                fields, _, rest = line.partition(" | ")
                try:
                    yield parse(fields.split(), rest.strip())
                except (ValueError, IndexError) as error:
                    raise UserError(
                        f"{path}, line {number} is not as WordNet's database has it (man wndb); "
                        f"install wordnet-base and set {key}: /usr/share/wordnet"
                    ) from error
    except OSError as error:
        raise UserError(
            f"{key}: {path} cannot be read ({reason_of(error)}); name a folder with data.noun, "
            "index.noun and the like, such as /usr/share/wordnet of Debian's wordnet-base"
        ) from error


def _gloss(fields: list[str], gloss: str) -> tuple[tuple[str, ...], str]:
    """offset file type words(hex) {word id} ... | gloss"""
    end = 4 + 2 * int(fields[3], 16)
    words = fields[4:end:2]
    if not words or len(fields) <= end or not gloss:
        raise ValueError("words or gloss are missing")
    return tuple(_PLACE.sub("", word) for word in words), gloss


def _synset(fields: list[str], _: str) -> tuple[str, Synset]:
    """offset file type words(hex) {word id} pointers {symbol offset pos source-target}"""
    pointers = 4 + 2 * int(fields[3], 16)
    first, count = pointers + 1, int(fields[pointers])
    if len(fields) != first + 4 * count:
        raise ValueError("pointers are missing")
    hypernyms = [
        _id(fields[at + 1])
        for at in range(first, len(fields), 4)
        if fields[at] in _HYPERNYM and fields[at + 2] == "n"
    ]
    return _id(fields[0]), Synset(tuple(fields[4:pointers:2]), tuple(hypernyms))


def _senses(fields: list[str], _: str) -> tuple[str, tuple[str, ...]]:
    """word pos senses kinds {kind} senses tagged {offset}, the most frequent sense first"""
    count, first = int(fields[2]), 6 + int(fields[3])
    if count < 1 or len(fields) != first + count:
        raise ValueError("senses are missing")
    return fields[0], tuple(map(_id, fields[first:]))


def _id(offset: str) -> str:
    if not SYNSET.fullmatch(f"n{offset}"):
        raise ValueError("no offset")
    return f"n{offset}"
