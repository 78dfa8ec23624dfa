"""What the report reads: lists of artifacts, each with a list of their places in the settings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from vista.config.base import Settings
from vista.config.metric import metrics_with
from vista.config.report import ReportSettings
from vista.engine.artifacts import Artifact
from vista.metrics.figure import Figure
from vista.metrics.results import read_figures, read_result
from vista.metrics.sae_check import TEXT_FIGURES, check_figures
from vista.report.differences import differences
from vista.report.encoder_differences import encoder_differences
from vista.report.shown import Measured, MetricPlace, SuggestionPlace
from vista.report.table import LongTable

Place = TypeVar("Place", bound=Settings)


class EncoderPlace(Settings):
    """An encoder, by its name."""

    encoder: str


class LlmPlace(Settings):
    """A language model, by its name."""

    llm: str


class PointPlace(Settings):
    """A point of the sweep."""

    encoder: str
    llm: str
    sae_weight: float
    seed: int
    control: str | None = None


class ReportOrder(Settings):
    """The run's name, the report's settings, and the places of the input artifacts.

    Attributes:
        points: of the inputs `metrics`.
        checks: of the inputs `checks`.
        curves: of the inputs `projectors`, one for each stage of training.
        suggestions: of the inputs `suggestions`.
        latents: of the inputs `latents`.
        labels: of the inputs `labels`.
        features: of the inputs `features`.
        dictionaries: Names of the entries of `llms` that read one model by several SAEs, for each
            such model.
    """

    name: str
    report: ReportSettings
    points: tuple[MetricPlace, ...] = ()
    checks: tuple[LlmPlace, ...] = ()
    curves: tuple[PointPlace, ...] = ()
    suggestions: tuple[SuggestionPlace, ...] = ()
    latents: tuple[PointPlace, ...] = ()
    labels: tuple[LlmPlace, ...] = ()
    features: tuple[EncoderPlace, ...] = ()
    dictionaries: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What the run made. Heat maps need latents, labels, features, records and images."""

    metrics: list[Artifact] = field(default_factory=list)
    checks: list[Artifact] = field(default_factory=list)
    projectors: list[Artifact] = field(default_factory=list)
    suggestions: list[Artifact] = field(default_factory=list)
    latents: list[Artifact] = field(default_factory=list)
    labels: list[Artifact] = field(default_factory=list)
    features: list[Artifact] = field(default_factory=list)
    records: Artifact | None = None
    world: Artifact | None = None
    fetched: Artifact | None = None


def aligned(places: Sequence[Place], artifacts: Sequence[Artifact]) -> list[tuple[Place, Artifact]]:
    """Return artifacts with their places."""
    return list(zip(places, artifacts, strict=True))


def read_measured(order: ReportOrder, inputs: Inputs) -> Measured:
    """Read the figures of the run's metrics, and of the checks of SAEs on held-out text."""
    metrics = aligned(order.points, inputs.metrics)
    declared = metrics_with(place.metric for place, _ in metrics)
    figures: list[Figure] = []
    of_groups: list[Figure] = []
    of_controls: list[Figure] = []
    for place, artifact in metrics:
        columns = place.model_dump(exclude={"metric"})
        has_groups = place.metric in declared and declared[place.metric].groups
        for figure in read_figures(artifact, stage=place.metric, **columns):
            in_group = has_groups and figure.set is not None
            table = of_controls if place.control else of_groups if in_group else figures
            table.append(figure)
    for llm, artifact in aligned(order.checks, inputs.checks):
        check = read_result(artifact)
        figures += [
            replace(figure, llm=llm.llm, stage="check_sae")
            for figure in check_figures(check, TEXT_FIGURES, check["layer"], "text")
        ]
    of_controls += [*differences(metrics), *encoder_differences(metrics)]
    tables = LongTable(figures), LongTable(of_groups), LongTable(of_controls)
    suggestions = aligned(order.suggestions, inputs.suggestions)
    return Measured(tables[0], order.report, metrics, *tables[1:], suggestions, order.dictionaries)
