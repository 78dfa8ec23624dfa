"""Figures of the long table for tests: with their point of the sweep, and as plain rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from vista.engine.artifacts import Artifact
from vista.metrics.figure import Figure
from vista.metrics.results import read_figures


def figures_of(
    point: Mapping[str, Any], figures: Iterable[Figure | Mapping[str, Any]]
) -> list[Figure]:
    """Return figures, or rows of them, at a point; its "metric" is the stage."""
    columns = {name: value for name, value in point.items() if value is not None}
    columns["stage"] = columns.pop("metric")
    made = (each if isinstance(each, Figure) else Figure(**each) for each in figures)
    return [replace(figure, **columns) for figure in made]


def read_rows(artifact: Artifact) -> list[dict[str, Any]]:
    """Return the figures of an artifact as rows."""
    return [figure.record() for figure in read_figures(artifact)]
