"""What one job takes, as the formulas give it."""

from __future__ import annotations

from dataclasses import dataclass

# Bytes of an artifact that holds figures or a small table, and of a row of a larger one. Both
# bound what the default run's artifacts take.
SMALL = 1e5
ROW = 400.0


@dataclass(frozen=True)
class Need:
    """What a job takes: bytes on disk, bytes on a GPU (0: none is used), seconds (0: not
    computed, since other things than arithmetic decide), bytes of main memory that it holds beside
    libraries, models and a batch (0: not computed). None: not known."""

    disk: float | None = SMALL
    memory: float | None = 0.0
    seconds: float | None = 0.0
    held: float | None = 0.0


UNKNOWN = Need(None, None, None)
