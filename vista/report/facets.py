"""Facet plots: a grid of panels that show the same series.

A facet is a value by which panels differ: of a row (an LLM, an encoder, a metric) or of a column
(an encoder, a set of images). A series is what one entry of the legend names: its figures in all
panels, and how they look. A point of a series stands for the figures at one x; it is their mean
over seeds, and its error bar joins the seeds' intervals (lowest to highest end). A level is the
chance level of a point.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from vista.metrics.figure import Figure
from vista.report import style
from vista.report.escape import mathtext
from vista.report.table import OverSeeds, over_seeds

# Row, column, x. `dict(groups(figures, "llm", "encoder", "layer"))` maps such keys to figures.
Key = tuple[Any, ...]

_MOST_TICKS = 9


@dataclass(frozen=True, eq=False)
class Series:
    """What one entry of the legend names, in all panels.

    Attributes:
        name: Its name in the legend.
        figures: Figures of all seeds by (row, column, x).
        look: Colour, marker and what else matplotlib's `errorbar` takes.
        level: How the points' chance levels look (`label` is their name in the legend), as
            matplotlib's `plot` takes it: a line, or `style.CHANCE_TICKS`; None: not drawn.
        dots: Whether each seed is drawn as a small dot.
        reference: Whether this is a line to compare others with: no error bars, no shift.
        filled: Keys of the points with a filled marker, the others are hollow; None: `look` says.
        across: Figures of which a point's x is the mean, by (row, column, x); None: x is the key's.
    """

    name: str
    figures: Mapping[Key, Sequence[Figure]]
    look: Mapping[str, Any]
    level: Mapping[str, Any] | None = None
    dots: bool = False
    reference: bool = False
    filled: Collection[Key] | None = None
    across: Mapping[Key, Sequence[Figure]] | None = None


@dataclass(frozen=True)
class XAxis:
    """What the panels' points are ordered by.

    Attributes:
        label: Label below the last row.
        names: Names of categories by x, in their order, below the last row; None: x is a number.
        rotation: Angle of the categories' names, in degrees.
        spread: Width over which series that meet at an x are spread, so that their error bars do
            not overlap; the distance of two categories or two layers is 1.
        continuous: Whether matplotlib chooses ticks and limits; otherwise ticks stand at the x of a
            row's figures.
    """

    label: str = ""
    names: Mapping[Any, str] | None = None
    rotation: float = 0.0
    spread: float = 0.15
    continuous: bool = False

    def place(self, x: Any) -> float:
        """Return where an x stands on the axis: categories at 0, 1, 2..."""
        return float(x if self.names is None else list(self.names).index(x))


def row_labels(names: Sequence[str], label: str) -> dict[Any, str]:
    """Return the y label of each row: its name, and below it what all rows show."""
    return {name: f"{mathtext(name, 30)}\n{label}" for name in names}


def facets(
    series: Sequence[Series],
    rows: Mapping[Any, str],
    columns: Mapping[Any, str],
    x: XAxis,
    *,
    title: str,
    note: str,
    limits: tuple[float, float] | None = None,
    from_zero: bool = False,
    least_n: int = 0,
    log: bool = False,
    chance_line: bool = False,
    size: tuple[float, float] = (2.7, 2.2),
    legend_columns: int | None = None,
) -> Any | None:
    """Draw series in panels, with one legend below and a heading above.

    Args:
        series: What is drawn in every panel.
        rows: y label of each row by its facet, from top to bottom.
        columns: Title of each column by its facet, from left to right.
        x: The x axis.
        title: Heading of the whole.
        note: Below the heading, smaller: what n is and what error bars are.
        limits: Lowest and highest y of all panels; None: the values of a row decide.
        from_zero: Whether y begins at 0 and ends where the values of a row do.
        least_n: Points that are a mean over fewer things are drawn grey.
        log: Whether y is logarithmic.
        chance_line: Whether a dotted line marks the one chance level of a panel's figures.
        size: Width and height of a panel, in inches.
        legend_columns: Columns of the legend; None: one line.

    Returns:
        The matplotlib figure, its `axes` row by row; None if no figure has a value.
    """
    if not any(f.value is not None for one in series for f in _figures(one)):
        return None
    width, height = size
    figure, axes = style.panels(list(rows), list(columns.values()), width=width, height=height)
    handles: list[Any] = []
    for (r, row), (c, column) in product(enumerate(rows), enumerate(columns)):
        axis = axes[r, c]
        handles += draw_panel(axis, series, row, column, x, least_n)
        here = [f for one in series for f in _figures(one, row, column)]
        level = next((f.chance for f in here if f.chance is not None), None)
        if chance_line and level is not None:
            look = {"color": style.CHANCE_COLOUR, "linestyle": ":"}
            handles.append(axis.axhline(level, label="chance", **look))
        if log:
            style.log_scale(axis)
        if limits is not None:
            axis.set_ylim(*limits)
        if c == 0:
            axis.set_ylabel(rows[row])
        if r == len(rows) - 1:
            axis.set_xlabel(x.label)
        elif x.names is not None:
            axis.tick_params(labelbottom=False)
    if from_zero:
        # After all panels: a limit that is set ends the scaling to the values of further panels.
        for r in range(len(rows)):
            axes[r, 0].set_ylim(0, axes[r, 0].get_ylim()[1])
    style.legend_below(figure, handles, columns=legend_columns)
    style.heading(figure, title, note)
    return figure


def draw_panel(
    axis: Any, series: Sequence[Series], row: Any, column: Any, x: XAxis, least_n: int = 0
) -> list[Any]:
    """Draw one panel and its x axis, or say that it is empty; return the legend's handles."""
    handles: list[Any] = []
    for one in series:
        points = _points(one, row, column, x, _shift(one, series, x))
        handles += _draw(axis, one, points, x, least_n)
    if not any(_figures(one, row, column) for one in series if not one.reference):
        style.empty(axis)
    _ticks(axis, x, {key[2] for one in series for key in one.figures if key[0] == row})
    return handles


def _figures(one: Series, *facet: Any) -> list[Figure]:
    """Return the figures of a series with a value, of all panels or of one (row, column)."""
    panel = [figures for key, figures in one.figures.items() if key[: len(facet)] == facet]
    return [figure for figures in panel for figure in figures if figure.value is not None]


@dataclass(frozen=True)
class _Point:
    key: Key
    x: float
    y: OverSeeds
    across: OverSeeds | None = None


def _shift(one: Series, series: Sequence[Series], x: XAxis) -> float:
    """Return how far a series is shifted: apart from those that it shares an x with."""
    if one.reference:
        return 0.0
    xs = {key[2] for key in one.figures}
    peers = [s for s in series if not s.reference and (s is one or xs & {k[2] for k in s.figures})]
    return x.spread * ((peers.index(one) + 0.5) / len(peers) - 0.5)


def _points(one: Series, row: Any, column: Any, x: XAxis, shift: float) -> list[_Point]:
    """Return the points of a series in a panel, from left to right."""
    points = []
    for key, figures in one.figures.items():
        if key[:2] != (row, column) or (y := over_seeds(figures)) is None:
            continue
        if one.across is None:
            points.append(_Point(key, x.place(key[2]) + shift, y))
        elif (across := over_seeds(one.across.get(key, ()))) is not None:
            points.append(_Point(key, across.mean, y, across))
    return sorted(points, key=lambda point: point.x)


def _draw(axis: Any, one: Series, points: Sequence[_Point], x: XAxis, least_n: int) -> list[Any]:
    """Draw a series in a panel; return its handles for the legend."""
    if not points:
        return []
    look = {"capsize": 2, "elinewidth": 1, **one.look}
    if one.filled is not None:
        look["markerfacecolor"] = "white"
    handles = [
        axis.errorbar(
            [point.x for point in points],
            [point.y.mean for point in points],
            yerr=None if one.reference else _bars([point.y for point in points]),
            xerr=_bars([point.across for point in points if point.across is not None]),
            label=one.name,
            **look,
        )
    ]
    for point in points:
        if one.dots and point.y.n_seeds > 1:
            seeds = [f.value for f in one.figures[point.key] if f.value is not None]
            xs = [point.x + 0.12 * x.spread] * len(seeds)
            axis.scatter(xs, seeds, s=5, color=look["color"], alpha=0.5)
        if point.y.n < least_n:
            grey = style.CHANCE_COLOUR
            axis.plot(point.x, point.y.mean, look.get("marker", "o"), color="white", zorder=6)
            axis.plot(point.x, point.y.mean, "x", color=grey, zorder=7, label="_few")
        if one.filled is not None and point.key in one.filled:
            axis.plot(point.x, point.y.mean, look["marker"], color=look["color"], zorder=5)
    if one.level is not None:
        handles += _draw_level(axis, one.level, points, x)
    return handles


def _draw_level(
    axis: Any, look: Mapping[str, Any], points: Sequence[_Point], x: XAxis
) -> list[Any]:
    """Draw the chance levels of points; return their handles for the legend."""
    # Lines are not shifted, so that the gaps of `style.dashes` show each other's dashes.
    is_line = "marker" not in look
    levels = [
        (x.place(point.key[2]) if is_line else point.x, point.y.chance)
        for point in points
        if point.y.chance is not None
    ]
    handles: list[Any] = axis.plot(*zip(*levels, strict=True), **look) if levels else []
    return handles


def _bars(summaries: Sequence[OverSeeds]) -> list[list[float]] | None:
    """Return the lengths of error bars below and above the means; None if there are none."""
    if all(s.low is None and s.high is None for s in summaries):
        return None
    # A percentile interval need not hold the mean.
    below = [0.0 if s.low is None else max(0.0, s.mean - s.low) for s in summaries]
    above = [0.0 if s.high is None else max(0.0, s.high - s.mean) for s in summaries]
    return [below, above]


def _ticks(axis: Any, x: XAxis, values: Collection[Any]) -> None:
    """Set ticks and limits of an x axis; `values` are the x of the row's figures."""
    if x.names is not None:
        places = range(len(x.names))
        turned = {"rotation": x.rotation, "ha": "right", "rotation_mode": "anchor"}
        axis.set_xticks(places, list(x.names.values()), **(turned if x.rotation else {}))
        axis.set_xlim(-0.5, len(places) - 0.5)
    elif values and not x.continuous:
        axis.set_xticks(sorted(values)[:: -(-len(values) // _MOST_TICKS)])
        axis.set_xlim(min(values) - 0.4, max(values) + 0.4)
