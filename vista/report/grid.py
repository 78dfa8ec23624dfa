"""Tables and sections of the readable summary: as Markdown, and as plain text for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from vista.metrics.bootstrap import LEAST_IMAGES
from vista.metrics.figure import Figure
from vista.metrics.rates import LEAST_IMAGES as LEAST_OF_RATES
from vista.report.escape import clean, markdown
from vista.report.table import OverSeeds

# A terminal may show ASCII only.
_ASCII = str.maketrans({"λ": "lambda", "–": "-", "≥": ">=", "≤": "<=", "×": "x", "…": "..."})


class Name(str):
    """A cell with text from a config or from data, which Markdown must escape."""


@dataclass(frozen=True)
class Grid:
    """A table of formatted cells: columns of `Name` are aligned left, others right."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]

    def markdown(self) -> str:
        """Return the table in Markdown."""
        lines = [
            "| " + " | ".join(self.header) + " |",
            "|" + "|".join(":---" if is_left else "---:" for is_left in self._are_names()) + "|",
        ]
        for row in self.rows:
            cells = [markdown(cell) if isinstance(cell, Name) else cell for cell in row]
            lines.append("| " + " | ".join(cells) + " |")
        return "\n".join(lines)

    def text(self) -> str:
        """Return the table in aligned plain ASCII."""
        rows = [[_plain(cell) for cell in row] for row in [self.header, *self.rows]]
        are_names = self._are_names()
        widths = [max(len(row[c]) for row in rows) for c in range(self.width)]
        lines = [
            "  ".join(
                cell.ljust(w) if is_left else cell.rjust(w)
                for cell, w, is_left in zip(row, widths, are_names, strict=True)
            ).rstrip()
            for row in rows
        ]
        return "\n".join([lines[0], "  ".join("-" * w for w in widths), *lines[1:]])

    def _are_names(self) -> list[bool]:
        """Return for each column whether all of its cells are names."""
        return [all(isinstance(row[c], Name) for row in self.rows) for c in range(self.width)]

    @property
    def width(self) -> int:
        """Number of columns."""
        return len(self.header)


@dataclass(frozen=True)
class Section:
    """A part of the summary.

    Attributes:
        title: Heading.
        text: A sentence or two on what the tables show.
        grids: Tables; those without rows are left out.
        paragraphs: Text below the tables.
    """

    title: str
    text: str = ""
    grids: Sequence[Grid] = field(default_factory=tuple)
    paragraphs: Sequence[str] = field(default_factory=tuple)

    def markdown(self) -> str:
        """Return the section in Markdown."""
        parts = [f"## {self.title}", self.text]
        parts += [grid.markdown() for grid in self.grids if grid.rows]
        parts += self.paragraphs
        return "\n\n".join(part for part in parts if part)

    def terminal(self) -> str:
        """Return the section in plain ASCII."""
        parts = [_plain(self.title), *(grid.text() for grid in self.grids if grid.rows)]
        return "\n\n".join(parts)


def number(value: float | None, digits: int = 3) -> str:
    """Return a number with `digits` digits after the point, fewer for large ones."""
    if value is None:
        return "–"
    if abs(value) >= 1000:
        return f"{value:.3g}"
    if abs(value) >= 100:
        return f"{value:.1f}"
    if abs(value) >= 10:
        return f"{value:.2f}"
    if value != 0 and abs(value) < 10**-digits:
        return f"{value:.1e}"
    return f"{value:.{digits}f}"


def spread(summary: OverSeeds | None) -> str:
    """Return the mean over seeds, and the smallest and largest value of several seeds."""
    if summary is None:
        return "–"
    if summary.n_seeds == 1:
        return number(summary.mean)
    return f"{number(summary.mean)} ({number(summary.smallest)}–{number(summary.largest)})"


def few(text: str, n: int, least_n: int) -> str:
    """Return a figure's text; with its n in brackets where that is smaller than `least_n`."""
    return text if n >= least_n or text == "–" else f"({text}, n = {n})"


def few_over_seeds(summary: OverSeeds | None, least_n: int) -> str:
    """Return the mean over seeds as `spread` does; marked as `few` does by the smallest n."""
    return few(spread(summary), summary.n if summary else 0, least_n)


def interval(low: float | None, high: float | None, n: int | None = None) -> str:
    """Return an interval; ∞ is its upper end where it has none.

    Of a figure without an interval, return the least n of intervals if its `n` is below it.
    """
    if low is None and high is None:
        least = LEAST_OF_RATES if n is not None and n < LEAST_OF_RATES else LEAST_IMAGES
        return f"– (n < {least})" if n is not None and 0 < n < least else "–"
    return f"[{number(low)}, {number(high) if high is not None else '∞'}]"


def with_interval(figures: Sequence[Figure]) -> str:
    """Return the value of a figure with its interval; `figures` is empty if it was not measured."""
    if not figures or figures[0].value is None:
        return "–"
    figure = figures[0]
    return f"{number(figure.value)} {interval(figure.ci_low, figure.ci_high, figure.n)}"


def reached(value: float | None, aim: float | None, *, at_most: bool = False) -> str:
    """Return whether a value reaches its aim: yes, no, or – without value or aim."""
    if value is None or aim is None:
        return "–"
    return "yes" if (value <= aim if at_most else value >= aim) else "no"


def name(value: str | None) -> Name:
    """Return a name from the config or the data as a cell."""
    return Name("–" if value is None else value)


def layer(value: int | None) -> str:
    """Return a layer as a cell."""
    return "all" if value is None else str(value)


def weight(value: float | None) -> str:
    """Return a weight of the SAE term as a cell."""
    return "–" if value is None else f"{value:g}"


def percent(share: float | None) -> str:
    """Return a relative change as a cell, with its sign."""
    return "–" if share is None else f"{100 * share:+.1f} %"


def interval_chance_n(summary: OverSeeds | None) -> list[str]:
    """Return three cells: interval, chance level, n."""
    if summary is None:
        return ["–", "–", "0"]
    return [interval(summary.low, summary.high, summary.n), number(summary.chance), str(summary.n)]


def _plain(cell: str) -> str:
    return clean(cell).translate(_ASCII).encode("ascii", "replace").decode("ascii")
