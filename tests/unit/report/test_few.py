"""Figures over few things are marked, and rank nothing."""

from __future__ import annotations

from typing import Any

from tests.long_table import figures_of
from vista.config.report import ReportSettings
from vista.metrics.figure import Figure
from vista.metrics.localization.report import localization_section
from vista.metrics.monosemanticity.report import monosemanticity_section
from vista.report.encoders_section import encoders_section
from vista.report.grid import few, interval, with_interval
from vista.report.groups_section import groups_section
from vista.report.summary import headline
from vista.report.table import LongTable

SAE: dict[str, Any] = {"encoder": "e", "method": "s", "layer": 2}


def games(n_of: dict[str, int], value: dict[str, float]) -> LongTable:
    """Return the pointing game of some encoders over n pairs each."""
    figures: list[Figure] = []
    for encoder, n in n_of.items():
        point = {"encoder": encoder, "llm": "m", "sae_weight": 1.0, "seed": 0}
        rows = [
            {"metric": name, "token_kind": "image", "layer": None, "value": value[encoder], "n": n}
            for name in ("pointing_game", "pointing_gain")
        ]
        figures += figures_of(point | {"metric": "localization"}, rows)
    return LongTable(figures)


def test_a_pointing_game_of_one_pair_is_neither_best_nor_bare() -> None:
    table = games({"lucky": 1, "good": 40, "fair": 10}, {"lucky": 1.0, "good": 0.8, "fair": 0.5})
    section = localization_section(table, least_n=10)
    by_encoder = {row[0]: row for row in section.grids[0].rows}
    assert by_encoder["lucky"][3] == "(1.000, n = 1)"
    assert by_encoder["good"][3] == "0.800"
    assert by_encoder["fair"][3] == "0.500"
    (order,) = section.grids[1].rows
    assert order[2] == "good 0.800 > fair 0.500"
    assert order[3] == "lucky (n = 1)"
    shown = headline(table, ReportSettings())
    assert "(1.000, n = 1)" in shown
    assert "(0.500" not in shown
    assert "(0.500, n = 10)" in headline(table, ReportSettings(least_n=11))


def test_the_table_of_encoders_marks_them_too() -> None:
    table = games({"lucky": 1, "good": 40}, {"lucky": 1.0, "good": 0.8})
    (row,) = encoders_section(table, 3, least_n=10).grids[0].rows
    assert list(row[3:]) == ["0.800 (–)", "(1.000 (–), n = 1)"]


def test_figures_of_groups_are_marked() -> None:
    point = {"metric": "caption", "encoder": "e", "llm": "m", "sae_weight": 0.0, "seed": 0}
    rows: list[dict[str, Any]] = [
        {"metric": metric, "set": group, "value": value, "n": n, **columns}
        for group, n in (("held_out", 9), ("seen", 10))
        for metric, value, columns in (
            ("caption_names_object", 0.5, {}),
            ("matching_rate", 0.25, {"k": 3, "token_kind": "image"}),
            ("pointing_game", 1.0, {"token_kind": "image"}),
        )
    ]
    of_groups = LongTable(figures_of(point, rows))
    held_out, seen = groups_section(of_groups, 3, least_n=10).grids[0].rows
    marked = [cell for cell in held_out if "n = 9" in cell]
    assert marked == ["(0.500, n = 9)", "(0.250, n = 9)", "(1.000, n = 9)"]
    assert not any("n = " in cell for cell in seen)
    assert "(1.000, n = 9)" in headline(LongTable(()), ReportSettings(), of_groups)


def test_figures_of_dictionaries_are_marked() -> None:
    figures = [
        Figure("monosemanticity", of=of, value=0.5, n=n, stage="monosemanticity", **SAE)
        for of, n in (("sae", 9), ("random", 40))
    ]
    marked, bare = monosemanticity_section(LongTable(figures), least_n=10).grids[0].rows
    assert (marked[5], bare[5]) == ("(0.500, n = 9)", "0.500")


def test_what_was_not_measured_is_not_marked() -> None:
    assert few("–", 0, 10) == "–"
    assert few("0.5", 10, 10) == "0.5"


def test_a_missing_interval_tells_the_least_n() -> None:
    assert interval(None, None, 4) == "– (n < 5)"
    assert interval(None, None, 5) == interval(None, None, 9) == "– (n < 10)"
    # Pairs of fewer images, or no interval by definition: the n of the figure is not the reason.
    assert interval(None, None, 10) == "–"
    assert interval(None, None, 0) == "–"
    assert interval(0.5, 1.0, 4) == "[0.500, 1.000]"
    assert with_interval([Figure("probe_accuracy", value=1.0, n=1)]) == "1.000 – (n < 5)"


def test_a_pointing_game_of_one_pair_has_no_interval() -> None:
    (row,) = localization_section(games({"lucky": 1}, {"lucky": 1.0}), least_n=10).grids[0].rows
    assert row[4] == "– (n < 5)"
