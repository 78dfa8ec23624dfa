"""Byte ranges of HTTP requests (RFC 9110, section 14): one range, or the whole file."""

from __future__ import annotations

import re
from typing import NamedTuple

_RANGE = re.compile(r"bytes=\s*([0-9]{0,18})\s*-\s*([0-9]{0,18})\s*", re.ASCII | re.IGNORECASE)


class Span(NamedTuple):
    """Bytes `start` to `stop` - 1 of a file."""

    start: int
    stop: int


class Unsatisfiable(ValueError):
    """A range that holds no byte of the file."""


def span_of(header: str | None, size: int) -> Span | None:
    """Return the bytes that a Range header asks for.

    Args:
        header: The value of the header.
        size: Bytes of the file.

    Returns:
        The span, cut off at the end of the file; None where the whole file is the answer: there is
        no range, several ones, or one that is malformed.

    Raises:
        Unsatisfiable: The range begins behind the end, or asks for the last 0 bytes.
    """
    match = _RANGE.fullmatch(header.strip()) if header else None
    if match is None:
        return None
    first, last = match.groups()
    if first:
        start, stop = int(first), int(last) + 1 if last else size
        if last and stop <= start:
            return None
    elif last:
        start, stop = max(0, size - int(last)), size
    else:
        return None
    if start >= size:
        raise Unsatisfiable(header)
    return Span(start, min(stop, size))
