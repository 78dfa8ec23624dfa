"""Where the time goes: the three dearest things of one run, each with its share."""

from __future__ import annotations

import cProfile
import pstats
from collections.abc import Callable
from pathlib import Path
from typing import Any


def torch_shares(run: Callable[[], Any]) -> str:
    """The operators with the most CPU time of their own."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU]) as found:
        run()
    return _dearest({each.key: each.self_cpu_time_total for each in found.key_averages()})


def python_shares(run: Callable[[], Any]) -> str:
    """The functions with the most time of their own."""
    profiler = cProfile.Profile()
    profiler.runcall(run)
    # (file, line, function) -> (calls, calls, own time, cumulated time, callers)
    found = pstats.Stats(profiler).stats  # type: ignore[attr-defined]
    times: dict[str, float] = {}
    for (file, _, function), (_, _, own, _, _) in found.items():
        name = function if file == "~" else f"{Path(file).stem}.{function}"
        times[name] = times.get(name, 0.0) + own
    return _dearest(times)


def _dearest(times: dict[str, float]) -> str:
    whole = sum(times.values()) or 1.0
    first = sorted(times.items(), key=lambda item: -item[1])[:3]
    return ", ".join(f"{name} {100 * spent / whole:.0f} %" for name, spent in first)
