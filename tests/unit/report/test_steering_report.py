"""Steering and discovery in the report: figures stand beside their chance level, or nowhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.long_table import figures_of
from vista.metrics.attribute_discovery.report import attributes_figure, attributes_section
from vista.metrics.diffusion_steering.measure import METHODS, MethodFigures, SteeringResult
from vista.metrics.diffusion_steering.report import steering_figure, steering_section
from vista.metrics.discovery import Proposal, attribute_discovery
from vista.metrics.result import Estimate
from vista.report import style
from vista.report.grid import Section
from vista.report.table import LongTable

POINT = dict.fromkeys(("llm", "sae_weight", "seed")) | {"encoder": "dinov2", "method": "text"}


def measured(value: float, chance: float | None = None) -> Estimate:
    return Estimate(value=value, ci_low=value - 0.1, ci_high=value + 0.1, chance=chance, n=12)


def table_of(stage: str, result: Any) -> LongTable:
    return LongTable(figures_of({**POINT, "metric": stage}, result.figures()))


@pytest.fixture
def steered() -> LongTable:
    methods = [
        MethodFigures(
            kind=kind,
            attribute="colour",
            method=method,
            gain=measured(0.61 - 0.1 * m, 0.51),
            gain_over_random=measured(0.1 - 0.1 * m, 0.0),
            drift=measured(0.2 + 0.1 * m, 0.3),
        )
        for kind in ("add", "ablate")
        for m, method in enumerate(METHODS)
    ]
    one = {"colour": measured(0.93, 0.13)}
    return table_of(
        "diffusion_steering",
        SteeringResult(
            methods=methods, accuracy=one, adherence=one, readable=["colour"], selectivity=one
        ),
    )


def test_every_method_has_a_row_of_its_own(steered: LongTable) -> None:
    edits, bases = steering_section(steered).grids
    assert [row[2] for row in edits.rows] == [*METHODS, *METHODS]
    assert [row[3] for row in edits.rows[:2]] == ["0.610", "0.510"]
    assert bases.rows[0][:3] == ["colour", "0.930", "0.130"]


def test_discovery_stands_beside_random_latents() -> None:
    proposals = [Proposal(0, "red", 0.99, 3.0, 2.0), Proposal(1, "red", 0.3)]
    result = attribute_discovery(
        proposals, proposals[1:], {"colour": ("blue", "red")}, min_auroc=0.9, min_gain=0.2,
        level=0.9,
    )  # fmt: skip
    table = table_of("attribute_discovery", result)
    (grid,) = attributes_section(table).grids
    found = {str(row[0]): (row[1], row[3], row[4]) for row in grid.rows}
    assert found["values found: colour"] == ("0.500", "0.000", "2")
    assert attributes_figure(table) is not None


@pytest.mark.parametrize(
    ("section", "figure"),
    [(steering_section, steering_figure), (attributes_section, attributes_figure)],
)
def test_what_was_not_measured_is_not_shown(
    section: Callable[[LongTable], Section], figure: Callable[[LongTable], Any]
) -> None:
    assert figure(LongTable([])) is None
    assert not any(grid.rows for grid in section(LongTable([])).grids)


def test_the_figure_has_a_point_for_each_method(steered: LongTable) -> None:
    figure = steering_figure(steered)
    assert figure is not None
    assert [len(axis.containers) for axis in figure.axes] == [len(METHODS)] * 2
    style.setup().close(figure)
