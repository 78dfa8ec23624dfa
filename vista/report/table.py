"""The long table: one row a figure, from all metrics of all points of a run."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from vista.metrics.figure import COLUMNS, Figure


class LongTable:
    """All figures of a run, sorted, with look-ups by column.

    Raises:
        ValueError: Two figures have the same key: the table would not be one row a figure.
    """

    def __init__(self, figures: Iterable[Figure]) -> None:
        self.figures: list[Figure] = sorted(figures, key=lambda f: _sortable(f.key))
        self._by_metric: dict[str, list[Figure]] = {}
        before: Figure | None = None
        for figure in self.figures:
            if before is not None and before.key == figure.key:
                raise ValueError(f"two rows for one figure: {figure.key}")
            self._by_metric.setdefault(figure.metric, []).append(figure)
            before = figure

    def __len__(self) -> int:
        return len(self.figures)

    def select(self, metric: str, **columns: Any) -> list[Figure]:
        """Return the figures of a metric whose columns have the given values (None included)."""
        return [
            figure
            for figure in self._by_metric.get(metric, [])
            if all(getattr(figure, name) == value for name, value in columns.items())
        ]

    def of_stage(self, stage: str) -> list[Figure]:
        """Return all figures that a stage measured."""
        return [figure for figure in self.figures if figure.stage == stage]

    def stages(self) -> list[str]:
        """Return the stages that measured the figures, sorted."""
        return sorted({figure.stage for figure in self.figures})

    def values(self, column: str) -> list[Any]:
        """Return the distinct values of a column, sorted, without None."""
        return distinct(self.figures, column)

    def records(self) -> Iterator[dict[str, Any]]:
        """Yield each row as a dict of the table's columns."""
        for figure in self.figures:
            yield figure.record()

    def csv(self) -> str:
        """Return the table as CSV: empty where a column does not apply, floats in full."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(COLUMNS)
        for record in self.records():
            writer.writerow(["" if value is None else _text(value) for value in record.values()])
        return out.getvalue()


@dataclass(frozen=True)
class OverSeeds:
    """The same figure over seeds: what a readable table shows.

    `low` and `high` join the seeds' intervals (lowest end, highest end) where `over_seeds` made
    them, and are None where a seed has no interval; a difference of interventions has one interval
    for its mean over seeds.
    """

    mean: float
    smallest: float
    largest: float
    low: float | None
    high: float | None
    chance: float | None
    n: int
    n_seeds: int


def over_seeds(figures: Sequence[Figure]) -> OverSeeds | None:
    """Summarise one figure over seeds; None if no seed has a value.

    `chance` is the mean of the seeds' levels, `n` the smallest n of a seed.
    """
    known = [(figure, figure.value) for figure in figures if figure.value is not None]
    if not known:
        return None
    values = [value for _, value in known]
    ends = [(figure.ci_low, figure.ci_high) for figure, _ in known]
    if (None, None) in ends:
        ends = []
    lows = [low for low, _ in ends if low is not None]
    highs = [high for _, high in ends if high is not None]
    levels = [figure.chance for figure, _ in known if figure.chance is not None]
    return OverSeeds(
        mean=sum(values) / len(values),
        smallest=min(values),
        largest=max(values),
        low=min(lows) if lows else None,
        high=max(highs) if highs and len(highs) == len(known) else None,
        chance=sum(levels) / len(levels) if levels else None,
        n=min(figure.n for figure, _ in known),
        n_seeds=len(known),
    )


def groups(figures: Iterable[Figure], *columns: str) -> list[tuple[tuple[Any, ...], list[Figure]]]:
    """Group figures by the values of some columns, sorted by them with None first."""
    found: dict[tuple[Any, ...], list[Figure]] = {}
    for figure in figures:
        found.setdefault(tuple(getattr(figure, c) for c in columns), []).append(figure)
    return sorted(found.items(), key=lambda item: _sortable(item[0]))


def distinct(figures: Iterable[Figure], column: str) -> list[Any]:
    """Return the values of a column without None, each once, sorted."""
    return sorted({value for f in figures if (value := getattr(f, column)) is not None})


def _sortable(key: tuple[Any, ...]) -> tuple[tuple[bool, Any], ...]:
    """Sort None before everything else."""
    return tuple((value is not None, 0 if value is None else value) for value in key)


def _text(value: Any) -> str:
    return repr(value) if isinstance(value, float) else str(value)
