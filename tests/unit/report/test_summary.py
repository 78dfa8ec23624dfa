"""The readable summary: comparisons by hand, aims, and runs that lack parts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tests.long_table import figures_of
from vista.config.report import Aims, ReportSettings
from vista.metrics.figure import Figure
from vista.metrics.matching_rate.report import matching_section
from vista.report.compare import pairs
from vista.report.grid import Grid, Name, interval, number, reached
from vista.report.sections import naming_section
from vista.report.shown import Measured
from vista.report.summary import headline, summary_markdown
from vista.report.table import LongTable

MakeRow = Callable[..., dict[str, Any]]


def run_of(row: MakeRow, fvu: tuple[float, float], entropy: tuple[float, float]) -> LongTable:
    figures: list[Figure] = []
    for weight, error, loss in zip((0.0, 1.0), fvu, entropy, strict=True):
        point = {"encoder": "e", "llm": "m", "sae_weight": weight, "seed": 0}
        rows = [
            row("fvu", error * 0.5, 0, "image"),
            row("fvu", error * 1.5, 1, "image"),
            row("fvu", 100.0, 0, "text"),
            # It falls in every case: no aim is about it.
            row("mse", 1.0 - 0.99 * weight, 0, "image"),
            row("l0", 10.0 + 5 * weight, 0, "image"),
            row("l0", 10.0, 0, "control"),
            row("variance", 6.0, 0, "image"),
            row("variance", 3.0, 0, "control"),
            row("image_variance", 1.5, 0, "image"),
        ]
        figures += figures_of(point | {"metric": "reconstruction"}, rows)
        caption = [row("caption_cross_entropy", loss, None, "text", chance=loss + 1.0)]
        figures += figures_of(point | {"metric": "caption"}, caption)
    return LongTable(figures)


def test_pairs_by_hand(make_row: MakeRow) -> None:
    (pair,) = pairs(run_of(make_row, (0.5, 0.1), (2.0, 2.1)))
    assert pair.layers == (0, 1)
    assert pair.fvu == pytest.approx((0.5, 0.1))
    assert pair.fvu_ratio == pytest.approx(5.0)
    assert pair.mse == pytest.approx((1.0, 0.01))
    assert pair.l0_ratio == pytest.approx(1.5)
    assert pair.variance == pytest.approx((2.0, 2.0))
    assert pair.image_variance == pytest.approx((0.5, 0.5))
    assert pair.fired_share is None
    assert pair.cross_entropy_increase == pytest.approx(0.05)


def test_a_pair_needs_the_same_seed(made_up: list[Figure]) -> None:
    figures = [f for f in made_up if not (f.sae_weight == 0.0 and f.seed == 1)]
    assert {pair.seed for pair in pairs(LongTable(figures))} == {0}


def test_every_weight_is_compared_with_the_baseline(
    made_up: list[Figure], make_row: MakeRow
) -> None:
    point = {"encoder": "clip", "llm": "llama", "sae_weight": 0.3, "seed": 0}
    more = figures_of(point | {"metric": "reconstruction"}, [make_row("fvu", 1.0, 0, "image")])
    found = [pair for pair in pairs(LongTable(made_up + more)) if pair.sae_weight == 0.3]
    assert len(found) == 1
    assert found[0].layers == (0,)
    assert found[0].cross_entropy is None


@pytest.mark.parametrize(
    ("fvu", "entropy", "verdict"),
    [
        ((0.51, 0.1), (2.0, 2.09), "yes"),
        ((0.49, 0.1), (2.0, 2.0), "no"),
        ((0.9, 0.1), (2, 2.2), "no"),
        ((9.0, 1.5), (2.0, 2.0), "collapse"),
    ],
)
def test_aims_are_judged(
    make_row: MakeRow, fvu: tuple[float, float], entropy: tuple[float, float], verdict: str
) -> None:
    text = headline(run_of(make_row, fvu, entropy), ReportSettings())
    assert verdict_of(text) == verdict


def verdict_of(text: str) -> str:
    line = next(each for each in text.splitlines() if each.startswith("e ") and "%" in each)
    return line.split()[-1]


def test_an_aim_that_was_not_measured_is_not_reached(make_row: MakeRow) -> None:
    whole = run_of(make_row, (0.9, 0.1), (2.0, 2.0))
    without = LongTable(f for f in whole.figures if f.metric != "l0")
    assert verdict_of(headline(without, ReportSettings())) == "-"
    aims = ReportSettings(aims=Aims(l0_ratio=None))
    assert verdict_of(headline(without, aims)) == "yes"


def test_tokens_at_which_no_latent_fires_miss_the_aim(make_row: MakeRow) -> None:
    whole = run_of(make_row, (0.9, 0.1), (2.0, 2.0))
    silent = LongTable(replace(f, value=0.0) if f.metric == "l0" else f for f in whole.figures)
    assert pairs(silent)[0].l0_ratio == float("inf")
    assert verdict_of(headline(silent, ReportSettings())) == "no"


def test_reached() -> None:
    assert reached(0.9, 0.9) == "yes"
    assert reached(0.89, 0.9) == "no"
    assert reached(0.05, 0.05, at_most=True) == "yes"
    assert reached(None, 0.9) == "–"
    assert reached(0.5, None) == "–"


def test_summary_opens_with_the_naming_figures(table: LongTable) -> None:
    text = summary_markdown(
        Measured(table, ReportSettings()), name="a_b", figures=[], notes=["a note"]
    )
    heads = [line for line in text.splitlines() if line.startswith("## ")]
    assert heads[0] == "## Does the run name its objects?"
    assert heads[1] == "## With the SAE term against without it"
    assert "- a note" in text
    assert "# Results of a\\_b" in text
    for line in text.splitlines():
        if line.startswith("| "):
            assert line.count("|") == header_width(text, line)


def header_width(text: str, line: str) -> int:
    """Columns of the table that a line stands in."""
    lines = text.splitlines()
    at = lines.index(line)
    while not lines[at].startswith("|:") and not lines[at].startswith("|-"):
        at += 1 if lines[at + 1].startswith("|-") or lines[at + 1].startswith("|:") else -1
    return lines[at].count("|")


def test_headline_is_ascii(table: LongTable) -> None:
    text = headline(table, ReportSettings())
    assert text.isascii()
    assert "lambda" in text
    assert "patch_accuracy" in text


def test_a_run_without_most_metrics_still_has_a_summary(make_row: MakeRow) -> None:
    nothing = dict.fromkeys(("encoder", "sae_weight", "seed"))
    point = nothing | {"metric": "naming", "llm": "gemma"}
    table = LongTable(figures_of(point, [make_row("named_classes", 0.5, 0, n=64)]))
    text = summary_markdown(Measured(table, ReportSettings()), name="x", figures=[], notes=[])
    assert "| gemma | 0 | 0.500" in text
    # Labels were not scored.
    assert "| no | – | – | – |" in text
    assert "Captions" not in text
    assert headline(table, ReportSettings())
    empty = LongTable([])
    assert "summary.csv" in summary_markdown(
        Measured(empty, ReportSettings()), name="x", figures=[], notes=[]
    )


def test_scores_of_labels_stand_beside_the_classes_that_they_name(table: LongTable) -> None:
    (named, *_) = naming_section(table, Aims()).grids
    assert tuple(named.header)[-3:] == ("label AUROC", "95 %", "n scored")
    assert {tuple(row[-3:]) for row in named.rows} == {("0.987", "[0.947, 1.027]", "61")}


def test_no_aim_no_verdict(table: LongTable) -> None:
    aims = Aims(
        named_classes=None,
        caption_names_object=None,
        patch_accuracy=None,
        error_ratio=None,
        cross_entropy_increase=None,
        l0_ratio=None,
        content_ratio=None,
        matching_ratio=None,
    )
    text = summary_markdown(
        Measured(table, ReportSettings(aims=aims)), name="x", figures=[], notes=[]
    )
    assert "| yes |" not in text
    assert "Aims:" not in text


def test_names_are_escaped_in_cells() -> None:
    grid = Grid(("a", "b"), [[Name("x|y<b>"), "1"]])
    assert grid.markdown().splitlines()[-1] == "| x&#124;y&lt;b&gt; | 1 |"


def test_numbers_for_people() -> None:
    assert number(None) == "–"
    assert number(0.0) == "0.000"
    assert number(0.12345) == "0.123"
    assert number(-12.3456) == "-12.35"
    assert number(558.2) == "558.2"
    assert number(12345.0) == "1.23e+04"
    assert number(0.00002) == "2.0e-05"
    assert interval(0.1, None) == "[0.100, ∞]"
    assert interval(None, None) == "–"


def test_what_a_judge_left_open_stands_beside_the_matching_rate(make_row: MakeRow) -> None:
    point = {"encoder": "e", "llm": "m", "sae_weight": 1.0, "seed": 0, "metric": "matching_rate"}
    rows = [make_row("matching_rate", 0.5, None, "image", k=3)]
    rows.append(make_row("matching_unanswered", 0.125, None, "image", k=3))
    section = matching_section(LongTable(figures_of(point, rows)), ReportSettings())
    (row,) = section.grids[0].rows
    assert dict(zip(section.grids[0].header, row, strict=True))["unanswered"] == "0.125"
    assert "name what is shown" in section.title
