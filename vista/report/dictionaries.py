"""An SAE beside other dictionaries of the same features: the rows and the facet plot of the metrics
that compare them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from vista.metrics.figure import Figure
from vista.report import grid, style
from vista.report.escape import mathtext
from vista.report.facets import Series, XAxis, facets
from vista.report.grid import Name
from vista.report.table import LongTable, groups, over_seeds
from vista.report.vision_sae_section import block, expansion

# Names of the dictionaries, by what their figures are `of`: the SAE, then its controls.
DICTIONARIES = {
    "sae": "SAE",
    "neurons": "neurons",
    "random": "random dictionary",
    "random_matched": "random, matched",
    "random_latents": "random latents",
}
# What a row is of, in the columns before its figures.
HEAD = ("encoder", "block", "SAE", "expansion", "dictionary")


class Quantity(NamedTuple):
    """What is measured of each dictionary: a metric, and the items that it is measured on."""

    metric: str
    set: str | None = None

    def figures(self, table: LongTable, dictionary: str, **columns: Any) -> list[Figure]:
        """Return its figures of a dictionary."""
        return table.select(self.metric, of=dictionary, set=self.set, **columns)


def dictionary_rows(
    table: LongTable, quantities: Sequence[Quantity], least_n: int = 0
) -> list[list[str]]:
    """Return a row for each encoder, SAE and dictionary: value, interval, chance, n by quantity.

    Values over fewer than `least_n` things are marked.
    """
    rows: list[list[str]] = []
    for (encoder, sae, layer), _ in groups(
        quantities[0].figures(table, "sae"), "encoder", "method", "layer"
    ):
        size = expansion(table, encoder, sae)
        for dictionary, name in DICTIONARIES.items():
            by_quantity = [
                quantity.figures(table, dictionary, encoder=encoder, method=sae)
                for quantity in quantities
            ]
            cells: list[str] = [grid.name(encoder), block(layer), grid.name(sae), size, Name(name)]
            for summary in map(over_seeds, by_quantity):
                cells += [
                    grid.few_over_seeds(summary, least_n),
                    *grid.interval_chance_n(summary),
                ]
            if any(by_quantity):
                rows.append(cells)
    return rows


def dictionary_facets(
    table: LongTable, quantities: Mapping[Quantity, str], *, title: str, note: str
) -> Any | None:
    """Draw a row of panels for each quantity and a column for each encoder: the SAEs from the
    smallest to the largest, each beside its controls, with chance levels as ticks.

    Args:
        table: The figures of the run.
        quantities: Each quantity with its y label.
        title: Heading.
        note: What intervals and ticks are.

    Returns:
        The matplotlib figure; None if nothing was measured.
    """
    drawn = {
        dictionary: {
            (quantity, figure.encoder, figure.method): [figure]
            for quantity in quantities
            for figure in quantity.figures(table, dictionary)
            if figure.value is not None
        }
        for dictionary in DICTIONARIES
    }
    dictionaries = [dictionary for dictionary, figures in drawn.items() if figures]
    blocks = {
        str(figure.encoder): figure.layer
        for by_key in drawn.values()
        for (figure,) in by_key.values()
    }
    saes = {str(sae) for by_key in drawn.values() for _, _, sae in by_key}
    figure = facets(
        [
            Series(
                DICTIONARIES[dictionary],
                drawn[dictionary],
                {
                    **(style.grey(place) if place else style.further_style(1)),
                    "linestyle": "none",
                },
                style.CHANCE_TICKS,
            )
            for place, dictionary in enumerate(dictionaries)
        ],
        quantities,
        {
            encoder: encoder if blocks[encoder] is None else f"{encoder}, block {blocks[encoder]}"
            for encoder in sorted(blocks)
        },
        XAxis(names=_sae_names(table, saes), spread=0.2 * len(dictionaries)),
        title=title,
        note=note,
        size=(3.2, 1.9),
    )
    # Heights are read against 0.
    for axis in figure.axes if figure is not None else ():
        axis.set_ylim(bottom=min(0, axis.get_ylim()[0]))
    return figure


def _sae_names(table: LongTable, saes: set[str]) -> dict[str, str]:
    """Return the SAEs by their size, each with its name on the x axis: latents a channel below."""
    sizes: dict[str, set[float]] = {sae: set() for sae in saes}
    for figure in table.select("vision_sae_expansion"):
        if figure.method in sizes and figure.value is not None:
            sizes[figure.method].add(figure.value)
    names = {}
    for sae in sorted(saes, key=lambda sae: (min(sizes[sae], default=0.0), sae)):
        below = ", ".join(f"{size:.3g}×" for size in sorted(sizes[sae]))
        names[sae] = "\n".join(line for line in (mathtext(sae, 20), below) if line)
    return names
