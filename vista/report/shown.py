"""What a metric adds to the report: `SHOWN` of its part `report`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from vista.config.base import Settings
from vista.config.report import ReportSettings
from vista.engine.artifacts import Artifact
from vista.report.grid import Section
from vista.report.table import LongTable


class MetricPlace(Settings):
    """A metric's stage, and the columns of its figures in the table; null where one does not apply.

    `method` is that of interventions, or the vision SAE of experiments on one.
    """

    metric: str
    encoder: str | None = None
    llm: str | None = None
    sae_weight: float | None = None
    seed: int | None = None
    control: str | None = None
    method: str | None = None


class SuggestionPlace(Settings):
    """An encoder and a language model, with the settings of the projectors between them in the
    config: factor on the first weights, learning rate of the first stage, SAE weights."""

    encoder: str
    llm: str
    init_scale: float
    lr: float
    sae_weights: tuple[float, ...]


@dataclass(frozen=True)
class Measured:
    """What a run measured, as its report reads it.

    Attributes:
        table: The figures of all metrics, but those of groups of images and of controls.
        settings: Settings of the report.
        metrics: The artifact of each metric with its place.
        groups: The figures of groups of images, named in the column `set`.
        controls: The figures of controls, named in the column `control`, and the paired differences
            between points, their controls and their encoders.
        suggestions: The artifact of each suggestion for training with its place.
        dictionaries: Names of the entries of `llms` that read one model by several SAEs, for each
            such model.
    """

    table: LongTable
    settings: ReportSettings
    metrics: Sequence[tuple[MetricPlace, Artifact]] = ()
    groups: LongTable = field(default_factory=lambda: LongTable(()))
    controls: LongTable = field(default_factory=lambda: LongTable(()))
    suggestions: Sequence[tuple[SuggestionPlace, Artifact]] = ()
    dictionaries: Sequence[Sequence[str]] = ()

    @property
    def whole(self) -> LongTable:
        """The figures of all metrics, groups and controls."""
        parts = (self.table, self.groups, self.controls)
        return LongTable(figure for part in parts for figure in part.figures)

    def of(self, stage: str) -> list[tuple[MetricPlace, Artifact]]:
        """Return the artifacts of a metric with their places, those of controls apart."""
        return [
            (place, artifact)
            for place, artifact in self.metrics
            if place.metric == stage and place.control is None
        ]


@dataclass(frozen=True)
class Drawing:
    """A figure of the report.

    Attributes:
        name: Name of its files.
        caption: What it shows.
        draw: Returns the matplotlib figure, or None where there is nothing to draw.
    """

    name: str
    caption: str
    draw: Callable[[], Any]


@dataclass(frozen=True)
class Shown:
    """What a metric adds to the report.

    Attributes:
        sections: Sections of the readable summary.
        drawings: Figures.
        note: A sentence for "How to read this", of a place and its result.
        pictures: Pattern of the names of picture files that the metric's stage draws, and what they
            show.
    """

    sections: Callable[[Measured], Sequence[Section]] = lambda measured: ()
    drawings: Callable[[Measured], Sequence[Drawing]] = lambda measured: ()
    note: Callable[[MetricPlace, Mapping[str, Any]], str | None] = lambda place, result: None
    pictures: tuple[str, str] | None = None
