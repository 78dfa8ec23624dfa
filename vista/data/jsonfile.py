"""JSON files of annotations: streamed, since they can be larger than memory; errors name the file.

Equal values are written as equal bytes.
"""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

import ijson
import numpy as np

from vista.errors import UserError, reason_of
from vista.foreign.text import one_line, refuse_utf_16
from vista.foreign.values import identifier

_MARKS: dict[type, bytes] = {dict: b"{", list: b"["}
# What a JSON file nests at most; COCO needs seven levels.
_DEEPEST = 100
_ESCAPE = re.compile(rb"\\.", re.DOTALL)
# All bytes but quotation marks and brackets.
_PLAIN = bytes(sorted(set(range(256)) - set(b'"[]{}')))
_BOM = b"\xef\xbb\xbf"
_LONGEST_LINE = 50_000_000  # bytes


def stream_list(path: Path) -> Iterator[Any]:
    """The items of a JSON file whose top is a list, one at a time."""
    return _stream(path, list, "item")


def stream_key(path: Path, key: str) -> Iterator[Any]:
    """The items of the list under `key` of a JSON file whose top is an object, one at a time.

    Raises UserError if there is no such list.
    """
    empty = True
    for item in _stream(path, dict, f"{key}.item"):
        empty = False
        yield item
    if empty and list(_stream(path, dict, key)) != [[]]:
        raise UserError(f"{path}: key `{key}` is missing or of a wrong type")


def stream_values(path: Path) -> Iterator[Any]:
    """Yield the values of a JSON file, one at a time.

    They are the items of a list, the values of an object, or those of each line of a .jsonl; a
    file whose name ends in .gz is unpacked on the way.

    Raises UserError where the file cannot be read or is not JSON.
    """
    count = 0
    opened = gzip.open if path.name.endswith(".gz") else Path.open
    try:
        with opened(path, "rb") as opened_file:
            file = cast(BinaryIO, opened_file)
            lines = path.name.removesuffix(".gz").endswith(".jsonl")
            for value in _lines(file, path) if lines else _values(file, path):
                yield value
                count += 1
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path} cannot be read: {reason_of(error)}") from error
    except (ijson.JSONError, ValueError, RecursionError) as error:
        after = f" after {count} entries" if count else ""
        reason = reason_of(error) if any(error.args) else "it is cut off"
        raise UserError(f"{path} is not JSON{after}: {reason}") from error


def _values(file: BinaryIO, path: Path) -> Iterator[Any]:
    first, shallow = _first_byte(file, path), _Shallow(file, path)
    if first == b"{":
        yield from (value for _, value in ijson.kvitems(shallow, "", use_float=True))
    elif first in (b"[", b""):
        yield from ijson.items(shallow, "item", use_float=True)
    else:
        raise UserError(f"{path} must hold a list or an object at its top, or be a .jsonl")


def _lines(file: BinaryIO, path: Path) -> Iterator[Any]:
    while line := file.readline(_LONGEST_LINE + 1):
        if len(line) > _LONGEST_LINE:
            raise UserError(f"{path} has a line of more than {_LONGEST_LINE:,} bytes")
        if line := line.removeprefix(_BOM).strip():
            yield json.loads(line)


def _stream(path: Path, kind: type, prefix: str) -> Iterator[Any]:
    count = 0
    try:
        with path.open("rb") as file:
            if _first_byte(file, path) not in (_MARKS[kind], b""):
                what = "an object" if kind is dict else "a list"
                raise UserError(f"{path} must hold {what} at its top, as COCO and LLaVA files do")
            for item in ijson.items(_Shallow(file, path), prefix, use_float=True):
                yield item
                count += 1
    except OSError as error:
        raise UserError(f"{path} cannot be read: {reason_of(error)}") from error
    except (ijson.JSONError, ValueError) as error:
        after = f" after {count} entries" if count else ""
        reason = reason_of(error) if any(error.args) else "it is cut off"
        raise UserError(f"{path} is not JSON{after}: {reason}") from error


def _first_byte(file: BinaryIO, path: Path) -> bytes:
    """The first byte of the content, without a byte order mark, which is left behind."""
    start = file.read(4096)
    refuse_utf_16(start, str(path))
    at = len(_BOM) if start.startswith(_BOM) else 0
    file.seek(at)
    return start[at:].lstrip()[:1]


class _Shallow:
    """A JSON file that is refused where values are nested deeper than in any annotation file.

    A parser's memory for a value grows with its depth: a few hundred kilobytes of brackets would
    fill it.
    """

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self._file = file
        self._path = path
        self._depth = 0
        self._in_text = False
        self._escaped = b""

    def read(self, size: int = -1) -> bytes:
        """The next bytes. Raises UserError where they are nested too deeply."""
        data = self._file.read(size)
        text = self._escaped + data
        if b"\\" in text:
            text = _ESCAPE.sub(b"", text)
        self._escaped = text[-1:] if text.endswith(b"\\") else b""
        parts = text.translate(None, _PLAIN).split(b'"')
        # Of the four brackets those that open have this bit.
        steps = np.frombuffer(b"".join(parts[self._in_text :: 2]), np.uint8)
        self._in_text ^= len(parts) % 2 == 0
        depths = self._depth + np.cumsum(np.where((steps & 2) > 0, 1, -1))
        if len(depths):
            self._depth = int(depths[-1])
            if int(depths.max()) > _DEEPEST:
                raise UserError(
                    f"{self._path} nests values more than {_DEEPEST} deep, as no COCO or LLaVA "
                    "file does"
                )
        return data


def get_key(item: Any, key: str, kind: type, path: Path) -> Any:
    """`item[key]` if it is of the kind; UserError naming file, key and the entry's id if not."""
    value = item.get(key) if isinstance(item, dict) else None
    # A bool counts as an int in Python: `true` would be taken for the id 1.
    if not isinstance(value, kind) or isinstance(value, bool):
        raise _wrong_type(item, key, path)
    return value


def get_identifier(item: Any, key: str, path: Path) -> str:
    """`item[key]` as the text of an id, equal for 2, 2.0 and "2"; UserError if it is none."""
    value = identifier(item.get(key)) if isinstance(item, dict) else None
    if value is None:
        raise _wrong_type(item, key, path)
    return value


def _wrong_type(item: Any, key: str, path: Path) -> UserError:
    entry = f" of entry {one_line(item['id'])}" if isinstance(item, dict) and "id" in item else ""
    return UserError(f"{path}: key `{key}`{entry} is missing or of a wrong type")


def write_json(path: Path, value: object) -> None:
    """Write with sorted keys and no spaces: equal values give equal bytes."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")
