"""Which split an image belongs to, and which images of a split are taken."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator

from vista.config.data import SPLITS, FileData, Fractions, Split
from vista.data.records import Record, record_to_row, row_to_record
from vista.data.spill import Spill


class Splitter:
    """Gives each id its split: a fixed one, or by a hash of the id, so that it never moves.

    Of each split only every nth id is taken, and of those the first `limit`, as the settings say.
    """

    def __init__(self, rule: Split | Fractions, settings: FileData) -> None:
        self._rule = rule
        self._every = settings.every
        self._limit = settings.limit
        self._seen = dict.fromkeys(SPLITS, 0)

    def split(self, key: str) -> Split | None:
        """The split of an id; None if it is not taken."""
        chosen = self._rule if isinstance(self._rule, str) else hash_split(key, self._rule)
        place, rest = divmod(self._seen[chosen], self._every)
        self._seen[chosen] += 1
        if rest or (self._limit is not None and place >= self._limit):
            return None
        return chosen


def in_split_order(records: Iterable[Record]) -> Iterator[Record]:
    """The records, train before validation before test, else in their order.

    Those of the later splits wait in a temporary file, so that memory holds none of them.
    """
    with Spill() as waiting:
        for record in records:
            if record.split == SPLITS[0]:
                yield record
            else:
                waiting.add(record.split, record_to_row(record))
        for split in SPLITS[1:]:
            yield from map(row_to_record, waiting[split])


def hash_split(key: str, fractions: Fractions) -> Split:
    """The split of an id by the first 8 bytes of its SHA-256, read as a share of the range."""
    # Lone surrogates stand for bytes of file names that are no UTF-8.
    digest = hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()
    share = int.from_bytes(digest[:8], "big") / 2**64
    if share < fractions.train:
        return "train"
    if share < fractions.train + fractions.validation:
        return "validation"
    return "test" if fractions.test > 0 else "train"
