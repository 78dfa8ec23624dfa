"""What one job takes, as the formulas give it."""

from __future__ import annotations

from dataclasses import dataclass

# Bytes of an artifact that holds figures or a small table, and of a row of a larger one. Both
# bound what the default run's artifacts take.
SMALL = 1e5
ROW = 400.0
# Seconds of a job until it has loaded its libraries and opened its inputs, without torch and with
# it: the medians of the smoke run's jobs, which have next to nothing to compute, on two cores.
START = 1.0
TORCH_START = 5.6


@dataclass(frozen=True)
class Need:
    """What the jobs of a node take: bytes on disk, bytes on a GPU (0: none is used), seconds with
    the start of the jobs (0: a download, which no formula tells), bytes of main memory that a job
    holds beside libraries, models and a batch (0: not computed). None: not known."""

    disk: float | None = SMALL
    memory: float | None = 0.0
    seconds: float | None = START
    held: float | None = 0.0


UNKNOWN = Need(None, None, None)
DONE = Need(0.0, 0.0, 0.0)
