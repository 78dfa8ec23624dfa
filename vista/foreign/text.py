"""Text files and small JSON files that other programs wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from vista.errors import UserError, reason_of

_UTF_16 = (b"\xff\xfe", b"\xfe\xff")
_LONGEST = 300  # characters of a name that a message shows


def read_text(path: Path) -> str:
    """The text of a UTF-8 file, without a byte order mark, its lines ended by newlines alone.

    Raises UserError where it cannot be read or has another encoding.
    """
    try:
        content = path.read_bytes()
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {reason_of(error)}") from error
    return decode_text(content, str(path))


def decode_text(content: bytes, place: str) -> str:
    """The text of UTF-8 bytes, as `read_text` gives it; `place` names them in an error."""
    refuse_utf_16(content, place)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{place} is not UTF-8 text ({error.reason} at byte {error.start}): save it as UTF-8"
        ) from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def refuse_utf_16(start: bytes, place: str) -> None:
    """Raise UserError where the first bytes of a file are the byte order mark of UTF-16."""
    if start.startswith(_UTF_16):
        raise UserError(f"{place} is UTF-16 text: save it as UTF-8")


def one_line(text: object) -> str:
    """A name or text of a foreign file for a message: on one line, and not endless."""
    line = " ".join(str(text).splitlines())
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 3]}..."


def escaped(text: str) -> str:
    r"""The text with what Unicode does not allow (lone surrogates, which stand for bytes of names
    that are no UTF-8) written as `\udcff`; other text is kept as it is.
    """
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def read_json_object(path: Path) -> dict[str, Any]:
    """The content of a small JSON file whose top is an object.

    Raises UserError where it cannot be read, is no JSON, or has another top.
    """
    text = read_text(path)
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not JSON: {reason_of(error)}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} must hold an object at its top, not {type(content).__name__}")
    return content
