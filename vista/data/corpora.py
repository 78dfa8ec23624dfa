"""Documents of text corpora that have no splits of their own, and corpora together."""

from __future__ import annotations

import hashlib
import random
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from vista.data.jsonfile import stream_values
from vista.errors import UserError
from vista.foreign.text import one_line
from vista.foreign.wordnet import read_glosses

Texts = dict[str, list[str]]
SPLITS = ("train", "heldout")


def json_documents(path: Path, key: str | None) -> Iterator[str]:
    """Yield the text of each record of a JSON file; those without one are counted and told.

    Args:
        path: The file, as `stream_values` reads it.
        key: Field of a record that holds the text; None: a record is a text.

    Raises UserError where the file is no JSON, or no record has a text.
    """
    count = without = 0
    fields: Counter[str] = Counter()
    for record in stream_values(path):
        count += 1
        if key is not None and isinstance(record, dict):
            if len(fields) < 100:
                fields.update(map(str, record))
            record = record.get(key)
        elif key is not None:
            record = None
        if isinstance(record, str) and (document := one_document(record)):
            yield document
        else:
            without += 1
    if without == count:
        what = "no record is a text" if key is None else f"no record has a text under {key!r}"
        known = ", ".join(one_line(name) for name, _ in fields.most_common(8))
        there = f": records have {known}" if known else ""
        raise UserError(f"{path}: {what}{there}; set `key` to the field that holds the text")
    if without:
        print(f"{path.name}: {without:,} of {count:,} records have no text, left out")


def gloss_documents(paths: Iterable[Path]) -> Iterator[str]:
    """Yield each meaning of WordNet as `word, word: definition; "example"`.

    Raises UserError where a file is missing or not as WordNet's database has it.
    """
    for path in paths:
        for words, gloss in read_glosses(path, "text.folder"):
            spelt = ", ".join(word.replace("_", " ") for word in words)
            yield one_document(f"{spelt}: {gloss}")


def one_document(text: str) -> str:
    """Return a text on one line, as documents of text files are, without lone surrogates."""
    return " ".join(text.encode("utf-8", "replace").decode().split())


def divide(documents: Iterable[str], heldout: float, limit: int | None = None) -> Texts:
    """Divide documents by a hash of their text; return them by split, in their order.

    Args:
        documents: The documents.
        heldout: Share of the documents that split `heldout` gets.
        limit: At most so many documents per split, those with the lowest hashes: a random choice
            that more documents hardly change. None: all.
    """
    chosen: dict[str, list[tuple[int, str]]] = {split: [] for split in SPLITS}
    bound = int(heldout * 2**64)
    for document in documents:
        number = int.from_bytes(hashlib.sha256(document.encode()).digest()[:8], "big")
        chosen["heldout" if number < bound else "train"].append((number, document))
    texts: Texts = {}
    for split, pairs in chosen.items():
        if limit is not None and limit < len(pairs):
            highest = sorted(number for number, _ in pairs)[limit - 1]
            pairs = [pair for pair in pairs if pair[0] <= highest][:limit]
        texts[split] = [document for _, document in pairs]
    return texts


def mix(
    parts: Sequence[Texts], seed: int, limit: int | None = None, words: Sequence[str] = ()
) -> Texts:
    """Return the documents of several corpora by split, in random order.

    Args:
        parts: The corpora.
        seed: Seed of the order.
        limit: At most so many documents per split, the first of the order; None: all.
        words: Documents that hold one of them, alone or with -s or -es, in any case, come first.
    """
    spelt = "|".join(re.escape(word) for word in words)
    pattern = re.compile(rf"\b(?:{spelt})(?:s|es)?\b", re.IGNORECASE) if words else None
    mixed: Texts = {}
    for split in SPLITS:
        documents = [document for texts in parts for document in texts[split]]
        # A split's order depends on no other split.
        random.Random(f"{seed} {split}").shuffle(documents)
        if pattern is not None:
            documents.sort(key=lambda document: pattern.search(document) is None)
        mixed[split] = documents[:limit]
    return mixed


def refuse_empty_splits(texts: Texts) -> None:
    """Raise UserError where a split has no documents."""
    for split, documents in texts.items():
        if not documents:
            count = sum(map(len, texts.values()))
            raise UserError(
                f"`text` has no documents of split {split!r} ({count:,} in all); set `heldout` to "
                "another share, or name a larger corpus"
            )


def size_of(texts: Texts) -> str:
    """Return how many documents and words each split has, in one line."""
    sizes = (
        f"{split} {len(documents):,} documents of {sum(len(d.split()) for d in documents):,} words"
        for split, documents in texts.items()
    )
    return ", ".join(sizes)
