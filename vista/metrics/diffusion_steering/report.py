"""What the report shows of steering a text-to-image pipeline."""

from __future__ import annotations

from typing import Any

from vista.metrics.diffusion_steering.measure import FIGURES, LATENT, METHODS, PROMPT
from vista.report import grid, style
from vista.report.escape import mathtext
from vista.report.facets import Series, XAxis, facets
from vista.report.grid import Grid, Section, spread
from vista.report.notes import span
from vista.report.shown import Drawing, Measured, Shown
from vista.report.table import LongTable, groups, over_seeds

# Names of the kinds of edits on the rows of the figure.
_ROWS = {"add": "steering", "ablate": "ablation"}


def steering_section(table: LongTable) -> Section:
    """Return gains and drifts by attribute and method, then how well probes and pipeline work."""
    rows = []
    for kind, names in FIGURES.items():
        for attribute in _attributes(table, names.gain):
            for method in METHODS:
                cells: list[str] = [grid.name(attribute), grid.name(kind), grid.name(method)]
                for metric in names:
                    summary = over_seeds(table.select(metric, of=method, set=attribute))
                    cells += [spread(summary), grid.interval_chance_n(summary)[0]]
                gain = over_seeds(table.select(names.gain, of=method, set=attribute))
                rows.append([*cells, str(gain.n if gain else 0)])
    bases = []
    for attribute in _attributes(table, "prompt_adherence"):
        basis: list[str] = [grid.name(attribute)]
        for metric in ("attribute_accuracy", "prompt_adherence", "latent_auroc"):
            summary = over_seeds(table.select(metric, set=attribute))
            basis += [spread(summary), *grid.interval_chance_n(summary)[1:]]
        bases.append(basis)
    return Section(
        "Steering a text-to-image pipeline through its text encoder",
        "Edits of the text encoder's stream with the noise held fixed, judged by probes on another "
        "encoder. Gain: share of images that show the target, edited less unedited (ablate: that "
        "cease to); over random: less a random direction's on the same prompts; drift: share of "
        "the other attributes that change, of those that unedited images show as told. Then the "
        "probes' accuracy on real images, the share of unedited images that show what their prompt "
        "says, and the AUROC of the chosen latents.",
        [
            Grid(
                (
                    *("attribute", "edit", "by", "gain", "95 %", "over random", "95 %"),
                    *("drift", "95 %", "n"),
                ),
                rows,
            ),
            Grid(
                (
                    *("attribute", "probe", "chance", "n", "adherence", "chance", "n"),
                    *("AUROC of latents", "chance", "n"),
                ),
                bases,
            ),
        ],
    )


def steering_figure(table: LongTable) -> Any | None:
    """Draw the gain of each method against its drift: a column an attribute, ablation below."""
    gains = {kind: table.select(names.gain) for kind, names in FIGURES.items()}
    drifts = {kind: table.select(names.drift) for kind, names in FIGURES.items()}
    kinds = [kind for kind, figures in gains.items() if figures]
    all_gains = [figure for kind in kinds for figure in gains[kind]]
    if not all_gains:
        return None

    def drawn(by_kind: Any, method: str) -> dict[tuple[Any, ...], list[Any]]:
        return {
            (kind, attribute, 0): figures
            for kind in kinds
            for (attribute, of), figures in groups(by_kind[kind], "set", "of")
            if of == method
        }

    figure = facets(
        [
            Series(
                method.replace("_", " "),
                drawn(gains, method),
                {**_look(place, method), "linestyle": "none", "capsize": 1.5, "elinewidth": 0.8},
                across=drawn(drifts, method),
            )
            for place, method in enumerate(METHODS)
        ],
        {kind: f"{mathtext(_ROWS[kind])}\ngain of the target" for kind in kinds},
        {figure.set: str(figure.set) for figure in sorted(all_gains, key=lambda f: str(f.set))},
        XAxis("share of other attributes changed", continuous=True),
        title="Steering a text-to-image pipeline through its text encoder",
        note="Steering adds a value to prompts of another one, ablation takes it from prompts that "
        "tell it; what images show is said by probes on another encoder. Bars: 95 % intervals over "
        f"prompts. n = {span([figure.n for figure in all_gains])} images a point.",
        limits=(-0.25, 1.05),
    )
    for axis in figure.axes if figure is not None else ():
        axis.axhline(0, color=style.CHANCE_COLOUR, linewidth=0.8)
        axis.set_xlim(-0.05, 1.05)
    return figure


def _look(place: int, method: str) -> dict[str, Any]:
    if method in (LATENT, PROMPT):
        return style.further_style(1 if method == LATENT else 2)
    return style.grey(place)


def _attributes(table: LongTable, metric: str) -> list[str]:
    return sorted({str(figure.set) for figure in table.select(metric)})


def _drawings(measured: Measured) -> list[Drawing]:
    return [
        Drawing(
            "steering",
            "Gain of the target and drift of other attributes, by method",
            lambda: steering_figure(measured.table),
        )
    ]


SHOWN = Shown(
    sections=lambda measured: [steering_section(measured.table)],
    drawings=_drawings,
    pictures=("grids/*.png", "Images of one noise, steered to a value by coefficient"),
)
