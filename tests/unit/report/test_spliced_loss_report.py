"""Loss recovered in the report: its section, its figure, and twins in the comparison."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tests.long_table import figures_of
from vista.config.report import ReportSettings
from vista.metrics.figure import Figure
from vista.metrics.spliced_loss.report import spliced_loss_figure, spliced_loss_section
from vista.report.compare import pairs
from vista.report.comparison_section import comparison_section
from vista.report.summary import headline
from vista.report.table import LongTable

MakeRow = Callable[..., dict[str, Any]]

# By weight and layer: against mean ablation. Without the term nothing is defined at layer 2.
SHARES: dict[float, dict[int, float | None]] = {
    0.0: {0: 0.6, 1: 0.8, 2: None},
    1.0: {0: 0.9, 1: 1.1, 2: 0.2},
}


@pytest.fixture
def spliced(made_up: list[Figure], make_row: MakeRow) -> LongTable:
    """The made-up run with the metric at clip and gemma, of one seed."""
    more: list[Figure] = []
    for weight, shares in SHARES.items():
        point = {"encoder": "clip", "llm": "gemma", "sae_weight": weight, "seed": 0}
        rows = []
        for kind in ("image", "control"):
            rows.append(make_row("spliced_cross_entropy", 0.5, None, kind, of="clean"))
            for layer, share in (*shares.items(), (None, None if weight == 0 else 2.2 / 3)):
                by_hand = share if kind == "image" else 0.95
                for of, value in (("mean", by_hand), ("zero", 0.99)):
                    rows.append(
                        make_row("spliced_loss_recovered", value, layer, kind, chance=0.0, of=of)
                    )
                if layer is not None:
                    for of, value in (("spliced", 0.55), ("mean", 1.5), ("zero", 7.25)):
                        rows.append(make_row("spliced_cross_entropy", value, layer, kind, of=of))
        more += figures_of(point | {"metric": "spliced_loss"}, rows)
    return LongTable(made_up + more)


def test_the_section_shows_shares_controls_and_cross_entropies(spliced: LongTable) -> None:
    (grid,) = spliced_loss_section(spliced).grids
    assert len(grid.rows) == 2 * (3 + 1)
    # LLM, layer, encoder, weight; share and interval, control; of zero ablation, control;
    # clean, spliced, mean, zero; n.
    cells = {(row[1], row[3]): list(row[4:]) for row in grid.rows}
    assert cells["1", "1"] == [
        *("1.100", "[1.060, 1.140]", "0.950", "0.990", "0.990"),
        *("0.500", "0.550", "1.500", "7.250", "400"),
    ]
    assert cells["all", "1"][0] == "0.733"
    assert cells["all", "1"][5:9] == ["0.500", "–", "–", "–"]
    # A share that is undefined keeps its row: the cross-entropies say why.
    assert cells["2", "0"] == [
        *("–", "–", "0.950", "0.990", "0.990"),
        *("0.500", "0.550", "1.500", "7.250", "400"),
    ]


def test_the_figure_has_the_weights_and_the_control(spliced: LongTable, table: LongTable) -> None:
    from matplotlib import pyplot

    assert spliced_loss_figure(table) is None
    figure = spliced_loss_figure(spliced)
    assert figure is not None
    heights = [list(line.get_ydata()) for line in figure.axes[0].lines]
    for expected in ([0.6, 0.8], [0.9, 1.1, 0.2], [0.95] * 3):
        assert pytest.approx(expected) in heights
    pyplot.close(figure)
    # Where no visual token is worth anything, as in the smoke config, the control stands alone.
    without = LongTable(
        replace(f, value=None) if f.metric.startswith("spliced") and f.token_kind == "image" else f
        for f in spliced.figures
    )
    figure = spliced_loss_figure(without)
    assert figure is not None
    assert [list(line.get_ydata()) for line in figure.axes[0].lines] == [[0.95] * 3]
    pyplot.close(figure)


def test_twins_are_means_over_the_layers_of_both(spliced: LongTable) -> None:
    found = {(p.encoder, p.llm, p.seed): p.loss_recovered for p in pairs(spliced)}
    # Not layer 2, which has no share without the term; never the zero ablation, nor the control.
    assert found.pop(("clip", "gemma", 0)) == pytest.approx((0.7, 1.0))
    assert set(found.values()) == {None}


def test_the_headline_has_both_values_or_dashes(spliced: LongTable, table: LongTable) -> None:
    text = headline(spliced, ReportSettings())
    shown = [
        line.split()
        for line in text.partition("With the SAE term")[2].partition("\n\n")[2].splitlines()
        if line.startswith("clip") and " gemma " in line and "%" in line
    ]
    assert [words[-5:-3] for words in shown] == [["0.700", "1.000"], ["-", "-"]]
    grid = comparison_section(spliced, ReportSettings()).grids[0]
    at = list(grid.header).index("loss recovered, λ = 0")
    row = next(row for row in grid.rows if row[:2] == ["clip", "gemma"])
    assert list(row[at : at + 2]) == ["0.700", "1.000"]
    # A run without the metric has the columns, too.
    without = comparison_section(table, ReportSettings()).grids[0]
    assert {tuple(row[at : at + 2]) for row in without.rows} == {("–", "–")}
