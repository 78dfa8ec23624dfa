"""What the report says of masks: figures without them, their curve, and factors of small gains."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.long_table import figures_of
from vista.config.report import ReportSettings
from vista.metrics.localization.report import localization_section
from vista.metrics.matching_rate.mask_report import mask_curve
from vista.metrics.matching_rate.report import matching_section
from vista.report.sections import glance_section
from vista.report.table import LongTable

MakeRow = Callable[..., dict[str, Any]]
BOUNDS = {"0.05": 0.1, "0.3": 0.4, "1": 0.7}


def table(make_row: MakeRow, gain: float = 0.1, width: float = 0.04) -> LongTable:
    figures = []
    for weight in (0.0, 1.0):
        own = gain if weight == 0 else 0.3
        rows = [
            make_row("matching_rate", own + 0.1, None, "image", k=3, chance=0.1, n=400),
            make_row("matching_gain", own, None, "image", k=3, width=width),
            make_row("matching_mask_difference", 0.5, None, "image", k=3, of="unmasked"),
        ]
        for of, rate in (("no_frequency_mask", 0.71), ("no_density_mask", 0.2), ("unmasked", 0.8)):
            rows.append(make_row("matching_rate", rate, None, "image", k=3, of=of, chance=0.15))
            rows.append(make_row("matching_gain", rate - 0.15, None, "image", k=3, of=of))
        for by, share in (("frequency", 0.9), ("density", 0.2), (None, 0.95)):
            for layer in (0, 1):
                value = share - 0.02 * layer
                rows.append(make_row("masked_activation", value, layer, "image", of=by))
        rows += [
            make_row("matching_by_mask", rate + own, None, "image", k=3, of=of, chance=rate / 4)
            for of, rate in BOUNDS.items()
        ]
        point = {"encoder": "e", "llm": "m", "sae_weight": weight, "seed": 0}
        figures += figures_of(point | {"metric": "matching_rate"}, rows)
    return LongTable(figures)


def test_the_headline_is_that_with_both_masks_and_the_others_stand_beside(
    make_row: MakeRow,
) -> None:
    figures = table(make_row)
    over_layers, masks, *_ = matching_section(figures, ReportSettings()).grids
    assert [row[3] for row in over_layers.rows] == ["0.200", "0.400"]
    cells = dict(zip(masks.header[3:5], masks.rows[0][3:5], strict=True))
    assert cells == {"match": "0.200", "shuffled": "0.100"}
    assert masks.rows[0][5:13] == [
        *("0.710", "0.150", "0.200", "0.150", "0.800", "0.150"),
        *("0.500", "[0.460, 0.540]"),
    ]
    # Mean over two layers.
    assert masks.rows[0][13:] == ["0.890", "0.190", "0.940", "400"]
    (first, _) = glance_section(figures, ReportSettings()).grids[0].rows
    assert first[6:8] == ["0.200", "0.100"]


def test_the_curve_shows_a_point_a_bound_and_the_shuffled_level(make_row: MakeRow) -> None:
    figure = mask_curve(table(make_row), 3)
    assert figure is not None
    (axis,) = figure.axes
    assert [tick.get_text() for tick in axis.get_xticklabels()] == ["5 %", "30 %", "100 %"]
    drawn = {
        tuple(round(float(y), 6) for y in line.get_ydata())
        for line in axis.get_lines()
        if len(line.get_ydata()) == len(BOUNDS)
    }
    for own in (0.1, 0.3):
        assert tuple(round(rate + own, 6) for rate in BOUNDS.values()) in drawn
    assert tuple(round(rate / 4, 6) for rate in BOUNDS.values()) in drawn
    assert mask_curve(LongTable([]), 3) is None


@pytest.mark.parametrize(
    ("gain", "width", "cells"),
    [
        (0.08, 0.04, ["3.75", "3.0", "yes", ""]),
        # The factor of 494 that a gain of next to nothing once gave.
        (3e-4, 2e-3, ["–", "3.0", "–", "the gain at λ = 0 may be 0"]),
        (-0.1, 0.04, ["–", "3.0", "–", "the gain at λ = 0 may be 0"]),
    ],
)
def test_no_factor_of_a_gain_that_may_be_nothing(
    make_row: MakeRow, gain: float, width: float, cells: list[str]
) -> None:
    section = matching_section(table(make_row, gain, width), ReportSettings())
    (grid,) = (grid for grid in section.grids if "factor" in grid.header)
    (row,) = grid.rows
    assert row[grid.header.index("factor") :] == cells


def test_the_pointing_game_stands_beside_that_of_salient_tokens_and_without_masks(
    make_row: MakeRow,
) -> None:
    rows = [
        make_row("pointing_game", 0.97, None, "image", chance=0.15, n=80),
        make_row("pointing_gain", 0.82, None, "image", n=80),
        make_row("pointing_salient", 0.58, None, "image", chance=0.15, n=80),
        make_row("pointing_salient_gain", 0.39, None, "image", n=80),
        make_row("pointing_game", 0.6, None, "image", chance=0.2, n=300, of="unmasked"),
        make_row("pointing_salient", 0.5, None, "image", chance=0.2, n=300, of="unmasked"),
    ]
    point = {"encoder": "e", "llm": "m", "sae_weight": 1.0, "seed": 0}
    figures = LongTable(figures_of(point | {"metric": "localization"}, rows))
    grids = localization_section(figures, 10).grids
    assert grids[0].rows[0][3:10] == [
        *("0.970", "[0.930, 1.010]", "0.150", "80"),
        *("0.580", "0.390", "[0.350, 0.430]"),
    ]
    assert grids[2].rows[0][3:] == [
        *("0.970", "0.150", "0.580", "80"),
        *("0.600", "0.200", "0.500", "300"),
    ]
