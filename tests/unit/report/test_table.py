"""The long table: columns, order, undefined values, seeds."""

from __future__ import annotations

import csv
import io
import random

import pytest

from tests.long_table import figures_of
from vista.metrics.figure import COLUMNS, Figure
from vista.report.table import LongTable, groups, over_seeds

POINT = {"metric": "caption", "encoder": "clip", "llm": "gemma", "sae_weight": 1, "seed": 0}
ROW = {
    "metric": "caption_cross_entropy",
    "layer": None,
    "token_kind": "text",
    "value": 0.1 + 0.2,
    "ci_low": None,
    "ci_high": None,
    "chance": None,
    "n": 40,
}


def test_csv_holds_every_column_and_exact_numbers() -> None:
    table = LongTable(figures_of(POINT, [ROW]))
    found = list(csv.DictReader(io.StringIO(table.csv())))
    assert list(found[0]) == list(COLUMNS)
    assert found[0]["sae_weight"] == "1.0"
    assert float(found[0]["value"]) == 0.1 + 0.2
    assert (found[0]["layer"], found[0]["chance"], found[0]["n"]) == ("", "", "40")


def test_order_of_inputs_does_not_show(made_up: list[Figure]) -> None:
    shuffled = made_up.copy()
    random.Random(0).shuffle(shuffled)
    assert LongTable(made_up).csv() == LongTable(shuffled).csv()


def test_one_figure_cannot_have_two_rows() -> None:
    with pytest.raises(ValueError, match="two rows"):
        LongTable(figures_of(POINT, [ROW, ROW]))
    both = figures_of(POINT, [ROW]) + figures_of(POINT | {"seed": 1}, [ROW])
    assert len(LongTable(both)) == 2


def test_select_tells_none_from_any(table: LongTable) -> None:
    point = {"encoder": "clip", "llm": "gemma", "sae_weight": 1.0, "seed": 0}
    assert len(table.select("fvu", token_kind="image", **point)) == 3
    assert len(table.select("matching_rate", k=3, layer=None, **point)) == 1
    assert len(table.select("matching_rate", k=3, **point)) == 4
    assert table.select("nothing") == []


def test_over_seeds_joins_intervals_and_skips_the_undefined() -> None:
    rows = [
        ROW | {"value": 1.0, "ci_low": 0.5, "ci_high": 1.5, "chance": 0.1, "n": 10},
        ROW | {"value": 3.0, "ci_low": 2.0, "ci_high": 4.0, "chance": 0.3, "n": 8},
        ROW | {"value": None, "n": 0},
    ]
    figures = [
        figure
        for seed, row in enumerate(rows)
        for figure in figures_of(POINT | {"seed": seed}, [row])
    ]
    summary = over_seeds(figures)
    assert summary is not None
    assert (summary.mean, summary.smallest, summary.largest) == (2.0, 1.0, 3.0)
    assert (summary.low, summary.high) == (0.5, 4.0)
    assert summary.chance == pytest.approx(0.2)
    assert (summary.n, summary.n_seeds) == (8, 2)
    assert over_seeds(figures[2:]) is None


def test_over_seeds_have_no_interval_where_one_has_none() -> None:
    rows = [
        ROW | {"value": 1.0, "ci_low": 0.5, "ci_high": 1.5, "n": 10},
        ROW | {"value": 3.0, "ci_low": 2.0, "n": 10},
        ROW | {"value": 1.0, "n": 2},
    ]
    figures = [
        f for seed, row in enumerate(rows) for f in figures_of(POINT | {"seed": seed}, [row])
    ]
    unbounded, unknown = over_seeds(figures[:2]), over_seeds(figures)
    assert unbounded is not None and (unbounded.low, unbounded.high) == (0.5, None)
    assert unknown is not None and (unknown.low, unknown.high) == (None, None)


def test_groups_sort_none_first(table: LongTable) -> None:
    found = [key for key, _ in groups(table.figures, "encoder", "layer")]
    assert found[0] == (None, 0)  # dictionaries belong to no encoder
    assert found[-1] == ("siglip", 2)
    assert found.index(("clip", None)) < found.index(("clip", 0)) < found.index(("dinov2", None))
