"""JSON files of annotations: streamed, since they can be larger than memory; errors name the file.

Equal values are written alike.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import ijson

from vista.errors import UserError

_MARKS: dict[type, bytes] = {dict: b"{", list: b"["}
_BOM = b"\xef\xbb\xbf"


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


def _stream(path: Path, kind: type, prefix: str) -> Iterator[Any]:
    count = 0
    try:
        with path.open("rb") as file:
            if _first_byte(file) not in (_MARKS[kind], b""):
                what = "an object" if kind is dict else "a list"
                raise UserError(f"{path} must hold {what} at its top, as COCO and LLaVA files do")
            for item in ijson.items(file, prefix, use_float=True):
                yield item
                count += 1
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from error
    except (ijson.JSONError, UnicodeDecodeError) as error:
        after = f" after {count} entries" if count else ""
        raise UserError(f"{path} is not JSON{after}: {_first_line(error)}") from error


def _first_byte(file: BinaryIO) -> bytes:
    """The first byte of the content, without a byte order mark, which is left behind."""
    start = file.read(4096)
    at = len(_BOM) if start.startswith(_BOM) else 0
    file.seek(at)
    return start[at:].lstrip()[:1]


def _first_line(error: Exception) -> str:
    text = error.args[0] if error.args else ""
    text = text.decode(errors="replace") if isinstance(text, bytes) else str(error)
    return text.splitlines()[0] if text else "it is cut off"


def get_key(item: Any, key: str, kind: type, path: Path) -> Any:
    """`item[key]` if it is of the kind; UserError naming file, key and the entry's id if not."""
    value = item.get(key) if isinstance(item, dict) else None
    if not isinstance(value, kind):
        number = f" of entry {item['id']}" if isinstance(item, dict) and "id" in item else ""
        raise UserError(f"{path}: key `{key}`{number} is missing or of a wrong type")
    return value


def write_json(path: Path, value: object) -> None:
    """Write with sorted keys and no spaces: equal values give equal bytes."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")
