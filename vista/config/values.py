"""Values that no setting may have."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from vista.errors import UserError

_NO_NAME = re.compile("[\0\ud800-\udfff]")
_DEEPEST, _MOST_VALUES = 50, 100_000


def refuse_odd(content: Mapping[str, Any], place: str) -> None:
    """Raise UserError for values that YAML allows and a config does not.

    JSON has no infinity and no NaN; a file's name has no NUL and no half surrogate pair; aliases
    can make a small file endless.
    """
    waiting: list[tuple[tuple[Any, ...], Any]] = [((), content)]
    seen = 0
    while waiting:
        key, value = waiting.pop()
        name, seen = ".".join(map(str, key)), seen + 1
        if len(key) > _DEEPEST or seen > _MOST_VALUES:
            raise UserError(f"{place}: {name[:60]} holds too much; see `vista schema`")
        if isinstance(value, Mapping):
            waiting += [((*key, name), item) for name, item in value.items()]
        elif isinstance(value, list | tuple):
            waiting += [((*key, i), item) for i, item in enumerate(value)]
        elif isinstance(value, float) and not math.isfinite(value):
            raise UserError(f"{place}: {name} is {value}; give a finite number, or leave it out")
        elif isinstance(value, str) and _NO_NAME.search(value):
            raise UserError(f"{place}: {name} holds a character that no name has; retype it")
