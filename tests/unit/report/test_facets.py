"""Facet plots: what matplotlib was given, read back from the figure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from vista.metrics.figure import Figure
from vista.report import style
from vista.report.facets import Series, XAxis, facets, row_labels
from vista.report.table import groups

RED = {"color": "#D55E00", "marker": "o"}
BLUE = {"color": "#0072B2", "marker": "s"}


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    yield
    style.setup().close("all")


def make(encoder: str, layer: int, value: float | None, seed: int = 0, **more: Any) -> Figure:
    ends = {} if value is None else {"ci_low": value - 0.1, "ci_high": value + 0.2}
    columns = {"encoder": encoder, "llm": "m", "layer": layer, "seed": seed, "chance": 0.25}
    return Figure("rate", value=value, **{**columns, **ends, **more})


def series(name: str, figures: list[Figure], look: dict[str, Any], **more: Any) -> Series:
    return Series(name, dict(groups(figures, "llm", "encoder", "layer")), look, **more)


def draw(lines: list[Series], x: XAxis | None = None, **more: Any) -> Any:
    encoders = {"a": "first", "b": "second"}
    rows = row_labels(["m"], "rate")
    x = XAxis("layer") if x is None else x
    return facets(lines, rows, encoders, x, title="Title", note="n = 3", **more)


def bars(axis: Any) -> list[tuple[str, list[tuple[float, float]], list[list[list[float]]]]]:
    """Name, (x, y) and segments of the error bars of each series of a panel."""
    return [
        (
            bar.get_label(),
            [tuple(point) for point in bar.lines[0].get_xydata()],
            [
                [list(end) for end in ends]
                for group in bar.lines[2]
                for ends in group.get_segments()
            ],
        )
        for bar in axis.containers
    ]


def texts(axis: Any) -> list[str]:
    return [text.get_text() for text in axis.texts]


def approx(points: list[tuple[float, float]]) -> list[Any]:
    return [pytest.approx(point) for point in points]


def test_points_are_means_over_seeds_with_joined_intervals() -> None:
    line = series("x", [make("a", 0, 0.4), make("a", 0, 0.6, seed=1), make("a", 1, 0.7)], RED)
    [(name, points, segments)] = bars(draw([line]).axes[0])
    assert name == "x"
    assert points == approx([(0, 0.5), (1, 0.7)])
    assert segments[0] == approx([(0, 0.3), (0, 0.8)])
    assert segments[1] == approx([(1, 0.6), (1, 0.9)])


def test_series_that_meet_are_shifted_apart_and_others_are_not() -> None:
    lines = [
        series("x", [make("a", 0, 0.4)], RED),
        series("y", [make("a", 0, 0.5)], BLUE),
        series("elsewhere", [make("a", 1, 0.6)], BLUE),
        series("reference", [make("a", 0, 0.7)], BLUE, reference=True),
    ]
    axis = draw(lines, XAxis(spread=0.4)).axes[0]
    xs = [points[0][0] for _, points, _ in bars(axis)]
    assert xs == pytest.approx([-0.1, 0.1, 1.0, 0.0])
    assert bars(axis)[3][2] == []  # no error bars on what others are compared with


def test_each_panel_holds_its_facet_and_an_empty_one_says_so() -> None:
    figure = draw([series("x", [make("a", 0, 0.4), make("b", 0, None)], RED)])
    first, second = figure.axes
    assert (first.get_title("left"), second.get_title("left")) == ("first", "second")
    assert (first.get_ylabel(), second.get_ylabel()) == ("m\nrate", "")
    assert [axis.get_xlabel() for axis in figure.axes] == ["layer", "layer"]
    assert (texts(first), texts(second)) == ([], ["not measured"])
    assert bars(second) == []
    assert [text.get_text() for text in figure.texts] == ["Title", "n = 3"]


def test_levels_of_a_series_and_of_a_panel() -> None:
    level = {"linestyle": "--", "color": "#D55E00", "label": "shuffled"}
    figures = [make("a", 0, 0.4), make("a", 0, 0.4, seed=1, chance=0.35), make("a", 1, 0.5)]
    figure = draw([series("x", figures, RED, level=level)], chance_line=True)
    lines = {line.get_label(): line for line in figure.axes[0].get_lines()}
    assert [tuple(p) for p in lines["shuffled"].get_xydata()] == approx([(0, 0.3), (1, 0.25)])
    assert lines["shuffled"].get_linestyle() == "--"
    assert set(lines["chance"].get_ydata()) == {0.25}
    [legend] = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["x", "shuffled", "chance"]
    assert "chance" not in {line.get_label() for line in figure.axes[1].get_lines()}


def test_lines_of_levels_are_not_shifted_and_ticks_are() -> None:
    dashed = {"linestyle": "--", "label": "level"}
    lines = [
        series("x", [make("a", 0, 0.4), make("a", 1, 0.5)], RED, level=dashed),
        series("y", [make("a", 0, 0.4)], BLUE, level=style.CHANCE_TICKS),
    ]
    axis = draw(lines, XAxis(spread=0.4)).axes[0]
    xs = {line.get_label(): list(line.get_xdata()) for line in axis.get_lines()}
    assert xs["level"] == [0.0, 1.0]
    assert xs["chance"] == pytest.approx([0.1])


def test_seeds_are_dots_where_there_are_several() -> None:
    from matplotlib.collections import PathCollection

    figures = [make("a", 0, 0.4), make("a", 0, 0.6, seed=1), make("a", 1, 0.7)]
    axis = draw([series("x", figures, RED, dots=True)], XAxis(spread=0)).axes[0]
    [dots] = [c for c in axis.collections if isinstance(c, PathCollection)]
    assert [tuple(dot) for dot in np.asarray(dots.get_offsets())] == approx([(0, 0.4), (0, 0.6)])


def test_categories_stand_in_their_order() -> None:
    x = XAxis(names={"knn": "nearest", "energy": "energy"}, spread=0)
    line = Series("x", {("m", "a", "energy"): [make("a", 0, 0.4)]}, RED)
    axis = draw([line], x).axes[0]
    assert bars(axis)[0][1] == approx([(1, 0.4)])
    assert [tick.get_text() for tick in axis.get_xticklabels()] == ["nearest", "energy"]
    assert axis.get_xlim() == (-0.5, 1.5)


def test_chosen_points_are_filled() -> None:
    figures = [make("a", 0, 0.4), make("a", 1, 0.7)]
    axis = draw([series("x", figures, RED, filled={("m", "a", 1)})], XAxis(spread=0)).axes[0]
    marks = {
        str(line.get_markerfacecolor()): [tuple(point) for point in line.get_xydata()]
        for line in axis.get_lines()
        if line.get_marker() == "o"
    }
    assert marks == {"white": [(0.0, 0.4), (1.0, 0.7)], "#D55E00": [(1.0, 0.7)]}


def test_x_may_be_measured_too() -> None:
    key = ("m", "a", "x")
    line = Series("x", {key: [make("a", 0, 0.4)]}, RED, across={key: [make("a", 0, 0.7)]})
    [(_, points, segments)] = bars(draw([line], XAxis(continuous=True)).axes[0])
    assert points == approx([(0.7, 0.4)])
    assert sorted(segments) == [approx([(0.6, 0.4), (0.9, 0.4)]), approx([(0.7, 0.3), (0.7, 0.6)])]


def test_a_logarithmic_axis_and_limits_hold_for_all_panels() -> None:
    line = series("x", [make("a", 0, 0.4), make("b", 0, 0.5)], RED)
    assert {axis.get_yscale() for axis in draw([line], log=True).axes} == {"log"}
    assert {axis.get_ylim() for axis in draw([line], limits=(0, 2)).axes} == {(0.0, 2.0)}


def test_an_axis_from_zero_follows_small_rates() -> None:
    small = [make("a", 0, 0.02), make("b", 0, 0.05)]
    small = [replace(f, ci_low=f.value, ci_high=f.value) for f in small]
    for axis in draw([series("rate", small, RED)], from_zero=True).axes:
        low, high = axis.get_ylim()
        assert low == 0
        assert 0.05 < high < 0.06


def test_points_over_few_things_are_crossed_out_in_grey() -> None:
    figures = [make("a", 0, 1.0, n=1), make("a", 1, 0.5, n=10)]
    panel = draw([series("rate", figures, RED)], least_n=10).axes[0]
    (cross,) = [line for line in panel.lines if line.get_marker() == "x"]
    assert cross.get_xydata().tolist() == [[0.0, 1.0]]
    assert cross.get_color() == style.CHANCE_COLOUR


def test_many_layers_have_few_ticks() -> None:
    line = series("x", [make("a", layer, 0.4) for layer in range(40)], RED)
    axis = draw([line]).axes[0]
    assert list(axis.get_xticks()) == [0, 5, 10, 15, 20, 25, 30, 35]
    assert axis.get_xlim() == (-0.4, 39.4)


def test_nothing_measured_no_figure() -> None:
    assert draw([series("x", [make("a", 0, None)], RED)]) is None
    assert draw([]) is None
