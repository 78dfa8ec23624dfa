"""Numbers and flags of JSON that other programs wrote: as text, as floats, as null."""

from __future__ import annotations

import math
import re
from typing import Any

_NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*", re.ASCII)
_LONGEST = 40  # characters of a number that is given as text
# float64 holds every integer up to here; beyond it, a float is no id.
_EXACT = 2**53
_FLAGS = {"0": False, "false": False, "no": False, "1": True, "true": True, "yes": True}


def number(value: Any) -> float | None:
    """The finite number that a JSON value or its text means (2, 2.0, "2"); None if it is none."""
    if isinstance(value, str) and len(value) <= _LONGEST and _NUMBER.fullmatch(value):
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        found = float(value)
    except OverflowError:
        return None
    return found if math.isfinite(found) else None


def integer(value: Any) -> int | None:
    """The whole number that a JSON value or its text means (2, 2.0, "2"); None if it is none."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str) and len(value) <= _LONGEST and value.strip().isdecimal():
        return int(value)
    found = number(value)
    if found is None or not found.is_integer() or abs(found) > _EXACT:
        return None
    return int(found)


def flag(value: Any) -> bool | None:
    """The truth that a JSON value or its text means (true, 1, 1.0, "1"); None if it is none."""
    if isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _FLAGS.get(value.strip().lower())
    found = number(value)
    return bool(found) if found in (0.0, 1.0) else None


def identifier(value: Any) -> str | None:
    """The text of an id, equal for 2, 2.0 and "2"; None if it is neither a text nor a whole number.

    A text is kept as it is: "007" is another id than 7.
    """
    if isinstance(value, str):
        return value or None
    found = integer(value)
    return None if found is None else str(found)
