"""Damage to JSON-like values, and what may come of it: a correct read, or one clear error, soon."""

from __future__ import annotations

import contextlib
import copy
import json
import os
import random
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
LONGEST_LINES = 3
# Damaged copies of a file that a test reads: a few in CI, thousands in the long version.
FUZZ = int(os.environ.get("VISTA_FUZZ", "50"))


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
    assert said is None or said.count("\n") < LONGEST_LINES, said


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


_VALUES = [None, "", "x", "1", "0.5", 0, 1, -1, 2, 0.5, -0.5, 1e-300, 1e300, 2**31, 2**70]
_VALUES += [True, False, [], {}, [1, 2], {"x": 1}, float("nan"), float("inf")]


def damaged_files(content: bytes, name: str) -> Iterator[bytes]:
    """FUZZ damaged copies of a file, the same ones in every run: bytes are flipped, cut off,
    inserted or doubled, and in JSON values, keys and elements are replaced, dropped, doubled or
    renamed. `name` seeds the choice."""
    chance = random.Random(name)
    try:
        value = json.loads(content)
    except ValueError:
        value = None
    for i in range(FUZZ):
        if isinstance(value, dict | list) and i % 3:
            yield _damaged_json(value, chance)
        else:
            yield _damaged_bytes(content, chance)


def _damaged_bytes(content: bytes, chance: random.Random) -> bytes:
    data = bytearray(content)
    for _ in range(chance.choice([1, 1, 2, 5])):
        start = chance.randrange(len(data) + 1)
        end = min(len(data), start + chance.choice([1, 1, 2, 8, 64]))
        how = chance.choice(["flip", "flip", "cut", "insert", "double", "drop", "swap", "mark"])
        if how == "flip" and start < len(data):
            data[start] ^= 1 << chance.randrange(8)
        elif how == "cut":
            del data[start:]
        elif how == "insert":
            data[start:start] = bytes(chance.choice(b"\0\n\r\t \"'{}[]%,:0x\xff") for _ in range(2))
        elif how == "double":
            data[start:start] = data[start:end]
        elif how == "drop":
            del data[start:end]
        elif how == "swap":
            other = chance.randrange(len(data) + 1)
            data[start:end] = data[other : other + end - start]
        elif how == "mark":
            data[:0] = chance.choice([b"\xef\xbb\xbf", b"\xff\xfe", b"\n"])
    return bytes(data)


class _Twice(str):
    """A key that comes twice in an object: another one for Python, the same text in JSON."""

    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        return self is other


def _damaged_json(value: Any, chance: random.Random) -> bytes:
    value = copy.deepcopy(value)
    for _ in range(chance.choice([1, 1, 1, 2, 3])):
        paths = places(value)[1:]
        if not paths:
            break
        path = chance.choice(paths)
        parent = value
        for key in path[:-1]:
            parent = parent[key]
        key = path[-1]
        how = chance.choice(["value", "value", "value", "text", "drop", "double", "rename", "wrap"])
        if how == "value":
            parent[key] = copy.deepcopy(chance.choice(_VALUES))
        elif how == "text":
            parent[key] = str(parent[key])
        elif how == "drop":
            del parent[key]
        elif how == "double" and isinstance(parent, list):
            parent.insert(key, copy.deepcopy(parent[key]))
        elif how == "double":
            parent[_Twice(key)] = copy.deepcopy(chance.choice([*_VALUES, parent[key]]))
        elif how == "rename" and isinstance(parent, dict):
            parent[f"{key}s"] = parent.pop(key)
        elif how == "wrap":
            parent[key] = chance.choice([[parent[key]], {"x": parent[key]}])
    return json.dumps(value, indent=chance.choice([None, 1])).encode()
