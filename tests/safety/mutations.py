"""Damage to JSON-like values, and what may come of it: a correct read, or one clear error, soon."""

from __future__ import annotations

import contextlib
import copy
import time
from collections.abc import Iterator
from typing import Any

from hypothesis import strategies as st

from vista.errors import UserError

_TEXTS = [
    "",
    " ",
    "..",
    "/",
    "a\x00b",
    "\x1b[31m",
    "\ud800",
    "\u202eabc",
    "{layer}",
    "nan",
    "é" * 300,
]
_NUMBERS = [0, 1, -1, 2, 3, 2**31, 2**63, 2**64, -(2**70), 10**30, 0.5, -0.5, 1e308]
_ODD = [
    float("nan"),
    float("inf"),
    -float("inf"),
    None,
    True,
    False,
    [],
    {},
    [[[]]],
    [None],
    {"": 0},
]
_KINDS = [{"kind": each} for each in ("x", None, [1])]
# Copied: what is drawn may be damaged further.
JUNK = st.sampled_from([*_TEXTS, *_NUMBERS, *_ODD, *_KINDS]).map(copy.deepcopy)


LONGEST_S = 2.0


@contextlib.contextmanager
def read_or_told(*named: str) -> Iterator[None]:
    """What is read inside is read soon, or ends in a UserError that names one of `named`."""
    said = None
    start = time.process_time()
    try:
        yield
    except UserError as error:
        said = str(error)
    assert time.process_time() - start < LONGEST_S
    assert said is None or any(name in said for name in named), said


def places(value: Any) -> list[tuple[Any, ...]]:
    """The paths of all values in `value`, its own, (), first."""
    found: list[tuple[Any, ...]] = [()]
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            found += [(key, *path) for path in places(value[key])]
    return found


@st.composite
def damaged(draw: st.DrawFn, value: Any, most: int = 3) -> Any:
    """`value` with one to `most` of its parts replaced, dropped, doubled, wrapped or swapped."""
    value = copy.deepcopy(value)
    for _ in range(draw(st.integers(1, most))):
        path = draw(st.sampled_from(places(value)))
        how = draw(st.sampled_from(["junk", "junk", "drop", "add", "wrap", "swap"]))
        if not path:
            if how == "junk" and most > 1 and draw(st.integers(0, 9)) == 0:
                return draw(JUNK)
            continue
        parent = value
        for key in path[:-1]:
            parent = parent[key]
        key = path[-1]
        if how == "junk":
            parent[key] = draw(JUNK)
        elif how == "drop":
            del parent[key]
        elif how == "add" and isinstance(parent, dict):
            parent[draw(st.sampled_from(["", "kind", "x", "é", "\x00"]))] = draw(JUNK)
        elif how == "add":
            parent.append(copy.deepcopy(parent[key]))
        elif how == "wrap":
            parent[key] = draw(st.sampled_from([[parent[key]], {"x": parent[key]}]))
        else:
            other = value
            for step in draw(st.sampled_from(places(value))):
                other = other[step]
            parent[key] = copy.deepcopy(other)
    return value
