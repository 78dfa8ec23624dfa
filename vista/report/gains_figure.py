"""Figure of what the SAE term adds to the matching rate, as run and beside controls of scale."""

from __future__ import annotations

from typing import Any

from vista.metrics.figure import Figure
from vista.report import style
from vista.report.differences import COMPARISON_NAMES, COMPARISONS, METRIC
from vista.report.facets import Series, XAxis, facets, row_labels
from vista.report.shown import Measured
from vista.report.table import groups

# Language model and its row, encoder and weight, comparison.
_Figures = dict[tuple[Any, ...], list[Figure]]


def gains_figure(measured: Measured) -> Any | None:
    """Draw the gain of each encoder and weight (columns) through each language model (rows); the
    dictionaries of one model share a row, and seeds stand beside the only dictionary of one.

    Returns:
        The matplotlib figure; None where nothing but the gain as run was measured.
    """
    gains = [f for f in measured.controls.select(METRIC) if f.value is not None]
    if not any(f.of != "as_run" for f in gains):
        return None
    row_of = {name: names[0] for names in measured.dictionaries for name in names}
    means: dict[str, _Figures] = {}
    seeds: dict[int, _Figures] = {}
    columns: dict[Any, str] = {}
    for (llm, encoder, weight, of), figures in groups(gains, "llm", "encoder", "sae_weight", "of"):
        columns[encoder, weight] = f"{encoder}, λ = {weight:g}"
        key = (row_of.get(llm, llm), (encoder, weight), of)
        for figure in figures:
            if figure.seed is None:
                means.setdefault(llm, {})[key] = [figure]
            elif llm not in row_of:
                seeds.setdefault(figure.seed, {})[key] = [figure]
    rows = row_labels(list(dict.fromkeys(row_of.get(llm, llm) for llm in means)), "gain")
    shown = {f.of for f in gains}
    look = {"linestyle": "none", "zorder": 4}
    series = [
        Series(llm, figures, {**style.further_style(place), **look})
        for place, (llm, figures) in enumerate(means.items())
    ]
    if len(seeds) > 1:
        dots = {"color": style.CHANCE_COLOUR, "marker": ".", "linestyle": "none", "zorder": 5}
        series += [Series("each seed", of_seed, dots, reference=True) for of_seed in seeds.values()]
    drawn = facets(
        series,
        rows,
        columns,
        XAxis(
            names={
                of: COMPARISON_NAMES[of].removeprefix("both ") for of in COMPARISONS if of in shown
            },
            rotation=20.0,
            spread=0.5 if row_of else 0.0,
        ),
        title="What the SAE term adds to the matching rate, beside controls of scale",
        note="Matching rate with the term - without it, paired over images, mean over layers and "
        "seeds; error bars: 95 % intervals over images. A gain that the controls do not leave is "
        "one of scale.",
        size=(3.4, 2.3),
    )
    for axis in drawn.axes if drawn is not None else ():
        axis.axhline(0, color=style.CHANCE_COLOUR, linewidth=0.8)
    return drawn
