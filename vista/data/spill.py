"""Rows kept by key in a temporary file, for data that are read in another order than needed."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Hashable, Iterator
from types import TracebackType
from typing import Any, Self


class Spill:
    """Values that JSON can hold, appended under a key and read back under it, in their order.

    Memory holds one number a value; the values are in an unnamed file that ends with the process.
    """

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115  (__exit__ closes it)
        self._places: dict[Hashable, list[int]] = {}
        self._end = 0
        self._moved = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def add(self, key: Hashable, value: Any) -> None:
        """Append one value under `key`."""
        if self._moved:
            self._file.seek(self._end)
            self._moved = False
        self._places.setdefault(key, []).append(self._end)
        self._end += self._file.write(json.dumps(value, separators=(",", ":")).encode() + b"\n")

    def __getitem__(self, key: Hashable) -> Iterator[Any]:
        """The values under `key`; none if there are none."""
        for place in self._places.get(key, ()):
            self._moved = True
            self._file.seek(place)
            yield json.loads(self._file.readline())

    def __contains__(self, key: Hashable) -> bool:
        return key in self._places
