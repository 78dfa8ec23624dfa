"""Style of all figures; saving a figure as bytes that depend on nothing but the figure."""

from __future__ import annotations

import textwrap
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vista.report.escape import clean, mathtext

# Okabe and Ito's colours, which all kinds of colour vision can tell apart. In every figure,
# vermilion is "without the SAE term" and blue "with it"; further weights of a sweep follow.
_COLOURS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
_MARKERS = ("o", "s", "^", "D", "v", "P")
CHANCE_COLOUR = "#6b6b6b"
TEXT_COLOUR = "#262626"
# A chance level as a short line at its point.
CHANCE_TICKS: dict[str, Any] = {
    "color": CHANCE_COLOUR,
    "linestyle": "none",
    "marker": "_",
    "markersize": 11,
    "markeredgewidth": 1.6,
    "label": "chance",
}

_RC: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.labelsize": 9,
    "axes.labelcolor": TEXT_COLOUR,
    "axes.edgecolor": "#9a9a9a",
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.8,
    "xtick.color": "#555555",
    "ytick.color": "#555555",
    "text.color": TEXT_COLOUR,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "lines.linewidth": 1.8,
    "lines.markersize": 5,
    # Without it, ids inside an SVG are random.
    "svg.hashsalt": "vista",
}


def setup() -> Any:
    """Select a backend without a display, set the style and return `matplotlib.pyplot`."""
    import matplotlib

    matplotlib.use("Agg", force=True)
    from matplotlib import pyplot

    pyplot.rcdefaults()
    for name, value in _RC.items():
        pyplot.rcParams[name] = value
    return pyplot


def context() -> Any:
    """Return a context that gives figures made in it this style; what is set outside stays."""
    import matplotlib

    return matplotlib.rc_context(_RC)


def series_style(weights: Sequence[float], weight: float) -> dict[str, Any]:
    """Return colour and marker of one weight of the SAE term, out of all weights of a figure."""
    return further_style(_rank(weights, weight))


def further_style(place: int) -> dict[str, Any]:
    """Return colour and marker of a series by its place in the legend.

    In a figure with weights of the SAE term, the weights take the first places.
    """
    return {"color": _COLOURS[place % len(_COLOURS)], "marker": _MARKERS[place % len(_MARKERS)]}


def grey(place: int) -> dict[str, Any]:
    """Return colour and marker of a control: grey, with a marker by its place."""
    return {"color": "#a6a6a6", "marker": _MARKERS[-1 - place % len(_MARKERS)]}


def dashes(weights: Sequence[float], weight: float) -> tuple[float, tuple[float, float]]:
    """Return a dash pattern of a weight; lines of several weights that coincide stay visible."""
    period = 4.0 * max(2, len(weights))
    return (4.0 * _rank(weights, weight), (4.0, period - 4.0))


def _rank(weights: Sequence[float], weight: float) -> int:
    return sorted(weights).index(weight)


def weight_name(weight: float) -> str:
    """Return the name of a weight of the SAE term in legends."""
    return "λ = 0 (no SAE term)" if weight == 0 else f"λ = {weight:g}"


def panels(
    rows: Sequence[str], columns: Sequence[str], *, width: float = 2.7, height: float = 2.2
) -> tuple[Any, Any]:
    """Return a figure and its axes [rows, columns], with the columns' names at the top.

    Args:
        rows: Names of the rows; the panels of a row share their y axis.
        columns: Names of the columns.
        width: Width of a panel, in inches.
        height: Height of a panel, in inches.
    """
    pyplot = setup()
    figure, axes = pyplot.subplots(
        len(rows),
        len(columns),
        figsize=(max(6.4, width * len(columns) + 1.0), height * len(rows) + 1.35),
        sharey="row",
        squeeze=False,
        layout="constrained",
    )
    for c, name in enumerate(columns):
        axes[0, c].set_title(mathtext(name, 40), fontweight="bold")
    return figure, axes


def heading(figure: Any, title: str, note: str) -> None:
    """Write a title above the panels, and a note below the title in smaller letters."""
    width, height = figure.get_size_inches()
    titles = textwrap.wrap(clean(title), int(width * 9.5))
    notes = textwrap.wrap(clean(note, 400), int(width * 16))
    below = 0.14 + 0.2 * len(titles)
    top = below + 0.08 + 0.16 * len(notes)
    figure.get_layout_engine().set(rect=(0, 0, 1, 1 - top / height))
    figure.text(
        0.1 / width, 1 - 0.1 / height, "\n".join(titles), va="top", fontsize=12, fontweight="bold"
    ).set_parse_math(False)
    figure.text(
        0.1 / width, 1 - below / height, "\n".join(notes), va="top", fontsize=8, color="#555555"
    ).set_parse_math(False)


def log_scale(axis: Any) -> None:
    """Make the y axis logarithmic, with plain numbers at 1, 2 and 5 of each decade."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set_yscale("log")
    axis.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=12))
    axis.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
    axis.yaxis.set_minor_formatter(NullFormatter())


def empty(axis: Any, reason: str = "not measured") -> None:
    """Write into a panel why it is empty."""
    axis.text(
        0.5, 0.5, reason, ha="center", va="center", transform=axis.transAxes, color=CHANCE_COLOUR
    )


def legend_below(figure: Any, handles: Sequence[Any], columns: int | None = None) -> None:
    """Add one legend below all panels, each label once.

    Args:
        figure: The matplotlib figure.
        handles: Handles of all panels.
        columns: Columns of the legend; None: one line.
    """
    by_label: dict[str, Any] = {}
    for handle in handles:
        # matplotlib names lines without a label itself, with "_" at the beginning.
        if not str(handle.get_label()).startswith("_"):
            by_label.setdefault(str(handle.get_label()), handle)
    if by_label:
        figure.legend(
            list(by_label.values()),
            list(by_label),
            loc="outside lower center",
            ncols=columns or len(by_label),
        )


def save(figure: Any, folder: Path, name: str, dpi: int) -> list[str]:
    """Write the figure as PNG and SVG without dates or versions, and close it.

    Args:
        figure: The matplotlib figure.
        folder: Where the files go.
        name: Name of the files, without suffix.
        dpi: Dots per inch of the PNG.

    Returns:
        Names of the PNG and the SVG.
    """
    from matplotlib import pyplot

    with warnings.catch_warnings():
        # Labels may be in scripts that the font lacks; matplotlib draws them as boxes and warns.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(folder / f"{name}.png", dpi=dpi, metadata={"Software": None})
        # The layout is computed by now; computing it again for the SVG takes as long as drawing.
        figure.set_layout_engine("none")
        figure.savefig(
            folder / f"{name}.svg",
            dpi=dpi,
            metadata={"Date": None, "Creator": None, "Format": None},
        )
    pyplot.close(figure)
    return [f"{name}.png", f"{name}.svg"]
