"""What a measurement is, and how it is made: both sides in turns, on the same work.

A cost is what one run of a side takes, in `unit`: seconds, or bytes. Both sides run once before
anything counts; then they take turns, so that whatever else the machine does meets both.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

Size = Literal["tiny", "full"]
"""tiny: the same code in seconds, for the tests; its figures mean nothing."""


@dataclass(frozen=True)
class Limit:
    """The least cost that the machine allows: `cost` in the case's unit, and what sets it."""

    cost: float
    of: str


@dataclass(frozen=True)
class Case:
    """One line of the results.

    `ours` and `usual` do the work once and return its cost. The figure is usual / ours, and meets
    the bar from `bar` on; with `at_most` it is ours / usual, or our cost where there is no usual
    way, and meets the bar up to `bar`. No bar: the figure is told for its own sake.
    `profile` says where the time goes in the usual way, and in ours.
    """

    name: str
    work: str
    ours: Callable[[], float]
    usual: Callable[[], float] | None = None
    bar: float | None = None
    at_most: bool = False
    unit: Literal["s", "bytes"] = "s"
    limit: Limit | None = None
    profile: Callable[[], tuple[str, str]] | None = None
    runs: int | None = None


def seconds(run: Callable[[], Any]) -> float:
    """Return the wall seconds that `run` takes."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def measure(case: Case, runs: int) -> dict[str, Any]:
    """Return the case's figures: medians, and the least and largest ratio of a turn (`spread`)."""
    # What is counted, not timed, is the same each time.
    runs = 1 if case.unit == "bytes" else case.runs or runs
    sides = [case.ours] if case.usual is None else [case.ours, case.usual]
    if case.unit == "s":
        for side in sides:
            side()
    turns = [[side() for side in sides] for _ in range(runs)]
    ratios = [_ratio(case, turn) for turn in turns]
    ratio = statistics.median(ratios)
    ours = statistics.median(turn[0] for turn in turns)
    usual = None if case.usual is None else statistics.median(turn[1] for turn in turns)
    before, after = ("", "") if case.profile is None else case.profile()
    met = None if case.bar is None else (ratio <= case.bar if case.at_most else ratio >= case.bar)
    return {
        "case": case.name,
        "work": case.work,
        "unit": case.unit,
        "ours": ours,
        "usual": usual,
        "ratio": ratio,
        "bar": case.bar,
        "at_most": case.at_most,
        "met": met,
        "n": runs,
        "spread": [min(ratios), max(ratios)],
        "limit": None if case.limit is None else {"cost": case.limit.cost, "of": case.limit.of},
        "profile": {"usual": before, "ours": after},
    }


def _ratio(case: Case, turn: list[float]) -> float:
    if len(turn) == 1:
        return turn[0]
    ours, usual = turn
    return ours / usual if case.at_most else usual / ours
