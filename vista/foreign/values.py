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
        result = float(value)
    except OverflowError:
        return None
    return result if math.isfinite(result) else None


def integer(value: Any) -> int | None:
    """The whole number that a JSON value or its text means (2, 2.0, "2"); None if it is none."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str) and len(value) <= _LONGEST and value.strip().isdecimal():
        return int(value)
    whole = number(value)
    if whole is None or not whole.is_integer() or abs(whole) > _EXACT:
        return None
    return int(whole)


def flag(value: Any) -> bool | None:
    """The truth that a JSON value or its text means (true, 1, 1.0, "1"); None if it is none."""
    if isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _FLAGS.get(value.strip().lower())
    truth = number(value)
    return bool(truth) if truth in (0.0, 1.0) else None


def identifier(value: Any) -> str | None:
    """The text of an id, equal for 2, 2.0 and "2"; None if it is neither a text nor a whole number.

    A text is kept as it is: "007" is another id than 7.
    """
    if isinstance(value, str):
        return value or None
    whole = integer(value)
    return None if whole is None else str(whole)
