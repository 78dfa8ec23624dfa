"""Which split an image belongs to."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator

from vista.config.data import SPLITS, Fractions, Split
from vista.data.records import Record


class Splitter:
    """Gives each id its split: a fixed one, or by a hash of the id, so that it never moves.

    `limit` caps the ids of a split; `split` then returns None for those beyond it.
    """

    def __init__(self, rule: Split | Fractions, limit: int | None = None) -> None:
        self._rule = rule
        self._limit = limit
        self._taken = dict.fromkeys(SPLITS, 0)

    def split(self, key: str) -> Split | None:
        """The split of an id; None if that split is full."""
        chosen = self._rule if isinstance(self._rule, str) else hash_split(key, self._rule)
        if self._limit is not None and self._taken[chosen] >= self._limit:
            return None
        self._taken[chosen] += 1
        return chosen

    @staticmethod
    def in_split_order(records: Iterable[Record]) -> Iterator[Record]:
        """The records, train before validation before test, else in their order."""
        order = {split: i for i, split in enumerate(SPLITS)}
        yield from sorted(records, key=lambda record: order[record.split])  # type: ignore[index]


def hash_split(key: str, fractions: Fractions) -> Split:
    """The split of an id by the first 8 bytes of its SHA-256, read as a share of the range."""
    digest = hashlib.sha256(key.encode()).digest()
    share = int.from_bytes(digest[:8], "big") / 2**64
    if share < fractions.train:
        return "train"
    if share < fractions.train + fractions.validation:
        return "validation"
    return "test" if fractions.test > 0 else "train"
