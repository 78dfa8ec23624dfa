"""Whether conclusions hold for every dictionary: verdicts by hand, and what the report shows."""

from __future__ import annotations

from dataclasses import replace

import pytest

from vista.config.report import ReportSettings
from vista.metrics.figure import Figure
from vista.report.dictionary_conclusions import (
    conclusions,
    conclusions_section,
    verdict,
)
from vista.report.gains_figure import gains_figure
from vista.report.shown import Measured
from vista.report.table import LongTable

NAMES = ("gemma2", "gemma2_seed1")


def gain(llm: str, of: str, value: float, low: float, high: float) -> Figure:
    return Figure(
        "matching_difference",
        of=of,
        encoder="dinov2",
        llm=llm,
        sae_weight=1.0,
        value=value,
        ci_low=low,
        ci_high=high,
        n=400,
    )


def fvu(llm: str, weight: float, value: float, seed: int = 0) -> Figure:
    return Figure(
        "fvu",
        encoder="dinov2",
        llm=llm,
        sae_weight=weight,
        seed=seed,
        layer=0,
        token_kind="image",
        value=value,
        n=9,
    )


def measured(names: tuple[str, ...] = NAMES) -> Measured:
    controls = [
        gain("gemma2", "as_run", 0.24, 0.20, 0.28),
        gain("gemma2_seed1", "as_run", 0.20, 0.16, 0.24),
        gain("gemma2", "norm_matched", 0.08, 0.05, 0.11),
        gain("gemma2_seed1", "norm_matched", -0.06, -0.09, -0.03),
        gain("gemma2", "text_scale", -0.04, -0.06, -0.02),
        gain("gemma2_seed1", "text_scale", 0.01, -0.01, 0.03),
        # One dictionary alone leaves nothing to compare.
        gain("gemma2", "best_scale", 0.01, -0.01, 0.03),
    ]
    table = [
        fvu("gemma2", 0.0, 0.6),
        fvu("gemma2", 1.0, 0.3),
        fvu("gemma2_seed1", 0.0, 0.5),
        fvu("gemma2_seed1", 0.0, 0.7, seed=1),
        fvu("gemma2_seed1", 1.0, 0.4),
        fvu("gemma2_seed1", 1.0, 0.9, seed=1),
    ]
    return Measured(
        LongTable(table),
        ReportSettings(),
        controls=LongTable(controls),
        dictionaries=(names,),
    )


@pytest.mark.parametrize(
    ("ends", "says"),
    [
        ([(0.1, 0.2), (0.3, 0.4)], "holds"),
        ([(-0.2, -0.1), (-0.4, -0.3)], "holds"),
        ([(0.1, 0.2), (-0.4, -0.3)], "flips"),
        ([(0.1, 0.2), (-0.1, 0.3), (-0.4, -0.3)], "flips"),
        ([(0.1, 0.2), (-0.1, 0.3)], "not settled"),
        ([(-0.1, 0.2), (-0.1, 0.3)], "not settled"),
        ([(0.0, 0.2), (0.1, 0.3)], "not settled"),
    ],
)
def test_verdicts_of_intervals(ends: list[tuple[float, float]], says: str) -> None:
    assert verdict([gain("m", "as_run", sum(e) / 2, *e) for e in ends]) == says


def test_differences_without_intervals_are_judged_by_their_signs() -> None:
    values = {"same sign": (0.1, 0.2, 0.0), "other sign": (0.1, -0.2)}
    for says, differences in values.items():
        assert verdict([Figure("fvu", value=value) for value in differences]) == says


def test_differences_by_dictionary() -> None:
    by_what = {c.what: c for c in conclusions(measured(), NAMES)}
    assert by_what["matching, as run"].by_dictionary["gemma2_seed1"].value == 0.20
    values = {name: f.value for name, f in by_what["FVU"].by_dictionary.items()}
    # Of two seeds the mean: (0.4 - 0.5 + 0.9 - 0.7) / 2.
    assert values == pytest.approx({"gemma2": -0.3, "gemma2_seed1": 0.05})


def test_the_section_says_what_flips() -> None:
    section = conclusions_section(measured())
    (grid,) = section.grids
    verdicts = {str(row[0]): str(row[-1]) for row in grid.rows}
    assert verdicts == {
        "matching, as run": "holds",
        "matching, norm-matched": "flips",
        "matching, both in text's scale": "not settled",
        "FVU": "other sign",
    }
    assert section.paragraphs[0].startswith(
        "Of 4 differences over 2 dictionaries of one language model, 2 change sign: holds 1"
    )


def test_a_ranking_of_encoders_may_flip() -> None:
    def difference(llm: str, value: float, low: float, high: float) -> Figure:
        point = {"encoder": "clip", "method": "dinov2", "llm": llm, "sae_weight": 1.0}
        ends = {"ci_low": low, "ci_high": high, "n": 400}
        return Figure("encoder_difference", of="matching_rate", value=value, **point, **ends)  # type: ignore[arg-type]

    figures = [
        difference("gemma2", 0.1, 0.05, 0.15),
        difference("gemma2_seed1", -0.1, -0.15, -0.05),
    ]
    ranked = Measured(LongTable([]), ReportSettings(), controls=LongTable(figures))
    (conclusion,) = conclusions(ranked, NAMES)
    assert (conclusion.what, conclusion.encoder) == ("encoders, matching", "clip - dinov2")
    assert verdict(list(conclusion.by_dictionary.values())) == "flips"


def test_one_dictionary_shows_nothing() -> None:
    alone = Measured(measured().table, ReportSettings(), controls=measured().controls)
    assert not conclusions_section(alone).grids
    (grid,) = conclusions_section(measured(("gemma2", "another"))).grids
    assert not grid.rows


def test_the_figure_has_a_series_a_dictionary() -> None:
    figure = gains_figure(measured())
    assert figure is not None
    (axis,) = figure.axes
    assert [tick.get_text() for tick in axis.get_xticklabels()] == [
        *("as run", "norm-matched", "in text's scale", "at best scale"),
    ]
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == list(NAMES)


def test_the_figure_shows_each_seed_of_one_dictionary() -> None:
    mean = gain("gemma2", "text_scale", 0.1, 0.0, 0.2)
    seeds = [replace(mean, seed=seed, value=value) for seed, value in enumerate((0.05, 0.15))]
    one = Measured(LongTable([]), ReportSettings(), controls=LongTable([mean, *seeds]))
    figure = gains_figure(one)
    assert figure is not None
    (axis,) = figure.axes
    heights = {float(y) for line in axis.lines for y in line.get_ydata()}
    assert {0.05, 0.1, 0.15} <= heights
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["gemma2", "each seed"]


def test_gains_without_controls_are_not_drawn() -> None:
    as_run = LongTable([gain("gemma2", "as_run", 0.1, 0.0, 0.2)])
    assert gains_figure(Measured(LongTable([]), ReportSettings(), controls=as_run)) is None
