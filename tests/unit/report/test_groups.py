"""Figures of groups of images: a section of their own, and no part of any other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.long_table import figures_of
from vista.config.report import ReportSettings
from vista.report.groups_section import groups_section
from vista.report.shown import Measured
from vista.report.summary import headline, summary_markdown
from vista.report.table import LongTable

MakeRow = Callable[..., dict[str, Any]]
POINT = {"metric": "caption", "encoder": "e", "llm": "m", "sae_weight": 0.0}


def named(make_row: MakeRow, values: tuple[float, ...], **columns: str) -> LongTable:
    """The share of captions that name the object, one value a seed."""
    return LongTable(
        figure
        for seed, value in enumerate(values)
        for figure in figures_of(
            POINT | {"seed": seed},
            [make_row("caption_names_object", value, chance=0.1, n=40, **columns)],
        )
    )


def test_groups_are_rows_and_seeds_are_joined(make_row: MakeRow) -> None:
    seen = named(make_row, (0.6, 0.8), set="seen")
    new = named(make_row, (0.25,), set="held_out")
    (table,) = groups_section(LongTable((*seen.figures, *new.figures)), 3).grids
    assert [list(row[:8]) for row in table.rows] == [
        ["held_out", "e", "m", "0", "0.250", "[0.210, 0.290]", "0.100", "40"],
        ["seen", "e", "m", "0", "0.700 (0.600–0.800)", "[0.560, 0.840]", "0.100", "40"],
    ]
    # No other metric was measured.
    assert set(table.rows[0][8:]) == {"–"}


def test_matching_stands_with_masks_and_without(make_row: MakeRow) -> None:
    point = POINT | {"metric": "matching_rate", "seed": 0}
    measured = {None: (0.2, 0.01), "unmasked": (0.7, 0.3), "no_density_mask": (0.0, 0.0)}
    rows = [
        make_row("matching_rate", value, None, "image", chance=level, k=3, set="seen", of=of)
        for of, (value, level) in measured.items()
    ]
    (table,) = groups_section(LongTable(figures_of(point, rows)), 3).grids
    assert table.header[10:14] == ("match@3", "shuffled", "without masks", "shuffled")
    assert list(table.rows[0][10:14]) == ["0.200", "0.010", "0.700", "0.300"]


def test_groups_are_in_the_whole_table_and_in_no_other_section(make_row: MakeRow) -> None:
    table = named(make_row, (0.5,))
    of_groups = named(make_row, (0.9,), set="seen")
    measured = Measured(table, ReportSettings(), groups=of_groups)
    assert [figure.set for figure in measured.whole.figures] == [None, "seen"]
    text = summary_markdown(measured, name="x", figures=[], notes=[])
    assert [line for line in text.splitlines() if "0.900" in line] == [
        line for line in text.splitlines() if line.startswith("| seen |")
    ]
    assert "Groups of images" in headline(table, ReportSettings(), of_groups)


def test_without_groups_there_is_no_section(make_row: MakeRow) -> None:
    table = named(make_row, (0.5,))
    assert "Groups" not in headline(table, ReportSettings())
    text = summary_markdown(Measured(table, ReportSettings()), name="x", figures=[], notes=[])
    assert "Groups" not in text
