"""Progress of long work: a bar on a terminal, a few lines in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Sized
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")

# Seconds between two lines in a log.
LOG_INTERVAL = 10.0


def progress(
    items: Iterable[T], *, total: int | None = None, desc: str = "", unit: str = "it"
) -> Iterator[T]:
    """Yield `items` and show the progress on standard error.

    On a terminal this is a tqdm bar. Elsewhere (a log, a cluster job) it prints one line every
    ten seconds and one at the end, with the rate in `unit`/s.
    """
    if total is None and isinstance(items, Sized):
        total = len(items)
    if sys.stderr.isatty():
        yield from tqdm(items, total=total, desc=desc, unit=unit, leave=True)
        return
    start = last = time.monotonic()
    done = 0
    for item in items:
        yield item
        done += 1
        now = time.monotonic()
        if now - last >= LOG_INTERVAL:
            last = now
            print(_line(desc, done, total, unit, now - start), file=sys.stderr, flush=True)
    print(_line(desc, done, total, unit, time.monotonic() - start), file=sys.stderr, flush=True)


def _line(desc: str, done: int, total: int | None, unit: str, seconds: float) -> str:
    of_total = f"/{total}" if total is not None else ""
    rate = done / seconds if seconds > 0 else 0.0
    left = ""
    if total is not None and rate > 0 and done < total:
        left = f", {(total - done) / rate:.0f} s left"
    many = f"{unit}es" if unit.endswith("ch") else f"{unit}s"
    return f"{desc}: {done}{of_total} {many}, {rate:.1f} {many}/s{left}"
