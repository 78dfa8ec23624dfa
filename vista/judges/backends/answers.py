"""Answers of a model that are JSON."""

from __future__ import annotations

import json
from typing import Any


class Malformed(Exception):
    """The answer does not have the requested form."""


def loads(content: str | bytes) -> Any:
    """Parse JSON of unknown origin. Raises Malformed where it is none."""
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        raise Malformed("no JSON") from None
