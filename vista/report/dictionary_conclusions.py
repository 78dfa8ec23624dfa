"""Whether a run's conclusions hold for every dictionary of a language model: entries of `llms` that
read one model by several SAEs (other seeds, sparsities or sizes)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from vista.metrics.figure import Figure
from vista.report import grid
from vista.report.compare import Pair, pairs
from vista.report.differences import COMPARISON_NAMES, COMPARISONS, METRIC
from vista.report.encoder_differences import METRIC as ENCODERS
from vista.report.grid import Grid, Name, Section, number
from vista.report.shown import Measured
from vista.report.table import groups

_RANKED = {"matching_rate": "encoders, matching", "pointing_game": "encoders, pointing"}
# What is read through an SAE, of projectors with the term and without.
_TWINS = ("fvu", "loss_recovered", "l0", "fired_share")
_NAMES = {
    "fvu": "FVU",
    "loss_recovered": "loss recovered",
    "l0": "L0",
    "fired_share": "fired share",
}


class Conclusion(NamedTuple):
    """A difference that the SAE term makes, or that lies between two encoders, by dictionary.

    Attributes:
        what: Name of the figure that differs.
        encoder: The encoder, or "first - second".
        weight: Weight of the SAE term: against 0, or of both encoders.
        by_dictionary: The difference for each entry of `llms` that has it: a mean over seeds, with
            an interval where it is paired over images.
    """

    what: str
    encoder: str
    weight: float
    by_dictionary: Mapping[str, Figure]


def conclusions(measured: Measured, names: Sequence[str]) -> Iterator[Conclusion]:
    """Yield the differences that are known for at least two of the dictionaries `names`."""
    gains = [f for f in measured.controls.select(METRIC) if f.seed is None and f.llm in names]
    for what in COMPARISONS:
        of_what = [f for f in gains if f.of == what and f.value is not None]
        for (encoder, weight), figures in groups(of_what, "encoder", "sae_weight"):
            yield Conclusion(
                f"matching, {COMPARISON_NAMES[what]}",
                encoder,
                weight,
                {str(f.llm): f for f in figures},
            )
    ranked = [f for f in measured.controls.select(ENCODERS) if f.seed is None and f.llm in names]
    for (of, first, second, weight), figures in groups(
        [f for f in ranked if f.value is not None], "of", "encoder", "method", "sae_weight"
    ):
        pair = f"{first} - {second}"
        yield Conclusion(_RANKED[of], pair, weight, {str(f.llm): f for f in figures})
    twins = [pair for pair in pairs(measured.table) if pair.llm in names]
    for what in _TWINS:
        for encoder, weight in sorted({(pair.encoder, pair.sae_weight) for pair in twins}):
            of_point = [p for p in twins if (p.encoder, p.sae_weight) == (encoder, weight)]
            by_dictionary = {
                name: figure
                for name in names
                if (figure := _difference(what, [p for p in of_point if p.llm == name]))
            }
            yield Conclusion(_NAMES[what], encoder, weight, by_dictionary)


def _difference(what: str, twins: Sequence[Pair]) -> Figure | None:
    """Return the mean over seeds of a figure with the term - without it."""
    sides = [values for pair in twins if (values := getattr(pair, what)) is not None]
    if not sides:
        return None
    value = sum(with_term - without for without, with_term in sides) / len(sides)
    return Figure(what, value=value, n=len(sides))


def verdict(figures: Sequence[Figure]) -> str:
    """Return whether differences agree over dictionaries.

    holds        all intervals lie on one side of 0
    flips        two intervals lie on different sides of 0
    not settled  neither: an interval holds 0
    same sign, other sign: of differences without intervals
    """
    if any(figure.ci_low is None or figure.ci_high is None for figure in figures):
        signs = {figure.value > 0 for figure in figures if figure.value}
        return "other sign" if len(signs) > 1 else "same sign"
    sides = {_side(figure) for figure in figures}
    if {-1, 1} <= sides:
        return "flips"
    return "not settled" if 0 in sides else "holds"


def _side(figure: Figure) -> int:
    """Return on which side of 0 an interval lies; 0 if it holds 0."""
    assert figure.ci_low is not None and figure.ci_high is not None
    return 1 if figure.ci_low > 0 else -1 if figure.ci_high < 0 else 0


def conclusions_section(measured: Measured) -> Section:
    """Return what the SAE term changes by dictionary, and whether the dictionaries agree."""
    grids, sentences = [], []
    for names in measured.dictionaries:
        rows, verdicts = [], []
        for conclusion in conclusions(measured, names):
            figures = conclusion.by_dictionary
            if len(figures) < 2:
                continue
            verdicts.append(verdict(list(figures.values())))
            rows.append(
                [
                    Name(conclusion.what),
                    grid.name(conclusion.encoder),
                    grid.weight(conclusion.weight),
                    *(_cell(figures.get(name)) for name in names),
                    Name(verdicts[-1]),
                ]
            )
        grids.append(Grid(("difference", "encoder", "λ", *map(grid.name, names), "verdict"), rows))
        if rows:
            counts = {v: verdicts.count(v) for v in dict.fromkeys(verdicts)}
            flipped = counts.get("flips", 0) + counts.get("other sign", 0)
            sentences.append(
                f"Of {len(verdicts)} differences over {len(names)} dictionaries of one language "
                f"model, {flipped or 'none'} {'changes' if flipped == 1 else 'change'} sign: "
                f"{', '.join(f'{name} {count}' for name, count in counts.items())}."
            )
    return Section(
        "Do the conclusions depend on the dictionary?",
        "With the SAE term - without it (encoders: the first - the second), for each dictionary "
        "(entry of `llms`) of one language model; projectors with the term are trained through the "
        "dictionary that reads them. Matching and encoders: paired over images, 95 % interval, "
        "mean over layers and seeds. holds: all intervals lie on one side of 0; flips: two lie on "
        "different sides; not settled: one holds 0. Other figures are means over layers and seeds "
        "without an interval, so that only their signs are compared.",
        grids,
        sentences,
    )


def _cell(figure: Figure | None) -> str:
    if figure is None:
        return "–"
    if figure.ci_low is None or figure.ci_high is None:
        return number(figure.value)
    return grid.with_interval([figure])
