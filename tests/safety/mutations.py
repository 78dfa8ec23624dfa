"""Damage to files and JSON-like values; what may come of it: a correct read or one clear error."""

from __future__ import annotations

import contextlib
import copy
import json
import os
import random
import signal
from collections.abc import Callable, Iterator
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


# CPU seconds after which a read counts as endless. Reads take milliseconds, so that no load of the
# machine makes one endless.
_ENDLESS_S = 10.0
MOST_LINES = 3  # of an error
# Mutations of each format: 50 in each run of the tests, 2,000 in the long version.
FUZZ = int(os.environ.get("VISTA_FUZZ", "50"))


@contextlib.contextmanager
def ends() -> Iterator[None]:
    """What is done inside comes to an end; AssertionError where it takes 10 s of CPU time."""

    def stop(*_: object) -> None:
        raise AssertionError(f"not done after {_ENDLESS_S:g} s of CPU time")

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, _ENDLESS_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


@contextlib.contextmanager
def read_or_told(*named: str) -> Iterator[None]:
    """What is read inside is read, or ends in a UserError that names one of `named`."""
    said = None
    with ends():
        try:
            yield
        except UserError as error:
            said = str(error)
    assert said is None or any(name in said for name in named), said
    assert said is None or len(said.splitlines()) <= MOST_LINES, said


def fuzz(name: str, check: Callable[[random.Random], None]) -> None:
    """Call `check` with a generator of numbers for each mutation of a format.

    Mutation i of a name is the same in every run; a failure says which it was.
    """
    for number in range(FUZZ):
        seed = f"{name} {number}"
        try:
            check(random.Random(seed))
        except BaseException as error:
            error.add_note(f"mutation random.Random({seed!r})")
            raise


def mutated_bytes(rng: random.Random, content: bytes) -> bytes:
    """`content` with one to three places flipped, overwritten, cut out, doubled or filled, or cut
    off."""
    data = bytearray(content)
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(data) + 1)
        end = min(len(data), at + rng.choice([1, 2, 4, 16, 512]))
        how = rng.choice(["flip", "flip", "byte", "drop", "double", "insert", "zero", "cut"])
        if how == "flip" and at < len(data):
            data[at] ^= 1 << rng.randrange(8)
        elif how == "byte" and at < len(data):
            data[at] = rng.choice([0, 1, 9, 10, 32, 127, 128, 255])
        elif how == "drop":
            del data[at:end]
        elif how == "double":
            data[at:at] = data[at:end]
        elif how == "insert":
            data[at:at] = rng.randbytes(end - at)
        elif how == "zero":
            data[at:end] = bytes(end - at)
        elif how == "cut" and rng.random() < 0.5:
            del data[at:]
    return bytes(data)


_SCALARS: list[Any] = [
    None, "", " ", "1", "1.0", "x", "nan", "\ud800", "a\nb\nc\nd", "\ufeffcat", "é" * 400, 0, 1, -1,
    2, 2.0, 0.5, -0.0, 1e308, 10**30, -(2**63), float("nan"), float("inf"), True, False, [], {},
    [None], [[1]], {"id": 1},
]  # fmt: skip
_AGAIN = "__again__"


def mutated_json(rng: random.Random, value: Any) -> str:
    """The text of `value` with one to three parts replaced, made text, dropped, renamed, doubled,
    nested or swapped; an object may have a key twice."""
    value = json.loads(json.dumps(value))  # no part is another part, too
    for _ in range(rng.choice([1, 1, 2, 3])):
        path = rng.choice(places(value)[1:] or [()])
        if not path:
            break
        parent = value
        for key in path[:-1]:
            parent = parent[key]
        key, part = path[-1], parent[path[-1]]
        how = rng.choice(["scalar", "scalar", "text", "drop", "rename", "double", "nest", "swap"])
        if how == "scalar":
            parent[key] = copy.deepcopy(rng.choice(_SCALARS))
        elif how == "text":
            parent[key] = part if isinstance(part, str) else json.dumps(part)
        elif how == "drop":
            del parent[key]
        elif how == "rename" and isinstance(parent, dict):
            parent[rng.choice(["", "id", "x", f"{key} ", key.upper()])] = parent.pop(key)
        elif how == "double" and isinstance(parent, dict):
            parent[f"{_AGAIN}{key}"] = copy.deepcopy(rng.choice([part, *_SCALARS]))
        elif how == "double" and isinstance(parent, list):
            parent.insert(rng.randint(0, len(parent)), copy.deepcopy(part))
        elif how == "nest":
            parent[key] = rng.choice([[part], [[part]], {"x": part}])
        elif how == "swap":
            other = value
            for step in rng.choice(places(value)):
                other = other[step]
            parent[key] = copy.deepcopy(other)
    return json.dumps(value).replace(f'"{_AGAIN}', '"')


def damaged_files(content: bytes, name: str) -> Iterator[bytes]:
    """FUZZ damaged copies of a file, the same ones in every run: its bytes, or where it is JSON,
    two times of three its values and keys."""
    try:
        value = json.loads(content)
    except ValueError:
        value = None
    for number in range(FUZZ):
        rng = random.Random(f"{name} {number}")
        if value is not None and number % 3:
            yield mutated_json(rng, value).encode()
        else:
            yield mutated_bytes(rng, content)


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
