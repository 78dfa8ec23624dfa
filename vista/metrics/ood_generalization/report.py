"""What the report shows of generalization out of distribution: a row a probe, a column a set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vista.metrics.figure import Figure
from vista.metrics.ood_generalization.measure import OURS, RIVALS, Representation
from vista.report import grid, style
from vista.report.escape import clean, mathtext
from vista.report.facets import Series, XAxis, facets, row_labels
from vista.report.grid import Grid, Name, Section, number, with_interval
from vista.report.notes import span
from vista.report.shown import Drawing, Measured, Shown
from vista.report.table import LongTable, groups

ACCURACY, GAIN, DROP = "probe_accuracy", "probe_gain", "probe_drop"
# Spaces of the probes in the order of the rows, and names of those without an SAE in the figure.
_SPACES = ("latents", "raw", "pca", "random")
_RIVAL_NAMES = {"raw": "raw features", "pca": "PCA", "random": "random dictionary"}


def ood_generalization_section(table: LongTable) -> Section:
    """Return the accuracy of every probe on the run's own images and on every shifted set."""
    sets = _sets(table.select(ACCURACY))
    rows: list[list[str]] = []
    drops: list[list[str]] = []
    for (encoder, sae), _ in groups(table.of_stage("ood_generalization"), "encoder", "method"):
        point = {"encoder": encoder, "method": sae}
        who = [grid.name(encoder), grid.name(sae)]
        for probe in _probes(table.select(ACCURACY, set=None, **point)):
            accuracies = _by_set(table, ACCURACY, probe, sets, point)
            rows.append([*who, Name(probe.key), *map(with_interval, accuracies)])
            of_shifts = _by_set(table, DROP, probe, sets[1:], point)
            drops.append([*who, Name(probe.key), *map(with_interval, of_shifts)])
        for rival in RIVALS:
            gains = _by_set(table, GAIN, rival, sets, point)
            rows.append([*who, Name(f"{OURS.key} - {rival.key}"), *map(with_interval, gains)])
        chance = [
            number(figures[0].chance if figures else None)
            for figures in _by_set(table, ACCURACY, OURS, sets, point)
        ]
        rows.append([*who, Name("chance"), *chance])
    head = [f"{clean(name or '') or 'held out'}, n = {_images(table, name)}" for name in sets]
    return Section(
        "Out of distribution: do linear probes keep their accuracy under shift?",
        "Images that show one class, with 95 % intervals over images. latents_K, raw_K and "
        "random_K: the K numbers that tell most of the class where probes are fitted; pca_K: as "
        "many principal components; random: a random dictionary of the SAE's size and sparsity. "
        "Chance: always the class that most images of the set have. Drop: accuracy on held-out "
        "images of the classes that the set has, less that on the set.",
        [
            Grid(("encoder", "SAE", "accuracy of a probe on", *head), rows),
            Grid(("encoder", "SAE", "drop of a probe on", *head[1:]), drops),
        ],
    )


def ood_generalization_figure(table: LongTable) -> Any | None:
    """Draw the accuracy of probes by the dimensions that they read, on own and shifted images."""
    figures = table.select(ACCURACY)
    saes = sorted({str(figure.method) for figure in figures})
    # Probes that read no SAE are the same for all; the random dictionary is the first one's.
    first = {
        encoder: min(str(figure.method) for figure in of_encoder)
        for (encoder,), of_encoder in groups(figures, "encoder")
    }

    def drawn(space: str, sae: str | None = None) -> dict[tuple[Any, ...], list[Figure]]:
        of_space = [
            figure
            for figure in figures
            if figure.of == space and figure.method == (sae or first[figure.encoder])
        ]
        return dict(groups(of_space, "encoder", "set", "k"))

    latents = [
        (f"latents, SAE {mathtext(sae, 24)}", drawn("latents", sae), style.further_style(place))
        for place, sae in enumerate(saes)
    ]
    rivals = [
        (name, drawn(space), style.grey(place))
        for place, (space, name) in enumerate(_RIVAL_NAMES.items())
    ]
    lines = (*latents, *rivals)
    sizes = sorted({figure.k for figure in figures if figure.k is not None})
    return facets(
        [Series(name, by_key, {**look, "linestyle": "-"}) for name, by_key, look in lines],
        row_labels(sorted(first), "accuracy"),
        {name: name or "held out" for name in _sets(figures)},
        XAxis(
            "numbers that the probe reads",
            names={**{k: str(k) for k in sizes}, None: "all"},
            spread=0.05 * len(lines),
        ),
        title="Out of distribution: accuracy of linear probes under shift",
        note=f"n = {span([figure.n for figure in figures])} images of one class; error bars: "
        "intervals over images. The random dictionary has the size and sparsity of the "
        "first SAE.",
        limits=(0, 1.02),
        chance_line=True,
        size=(2.9, 2.6),
        legend_columns=4,
    )


def _by_set(
    table: LongTable,
    metric: str,
    of: Representation,
    sets: Sequence[str | None],
    point: Mapping[str, Any],
) -> list[list[Figure]]:
    """Return the figure of a metric on each set, in a list that is empty where there is none."""
    columns = {"of": of.space, "k": of.k, **point}
    return [table.select(metric, set=name, **columns) for name in sets]


def _sets(figures: Sequence[Figure]) -> list[str | None]:
    """Return the run's own images, None, then the shifted sets."""
    return sorted({figure.set for figure in figures}, key=lambda name: name or "")


def _probes(figures: Sequence[Figure]) -> list[Representation]:
    """Return what the probes read: space by space, all dimensions first, then fewer and fewer."""
    probes = {Representation(str(figure.of), figure.k) for figure in figures}
    return sorted(
        probes, key=lambda probe: (_SPACES.index(probe.space), probe.k is not None, -(probe.k or 0))
    )


def _images(table: LongTable, name: str | None) -> int:
    return table.select(ACCURACY, of=OURS.space, k=None, set=name)[0].n


def _drawings(measured: Measured) -> list[Drawing]:
    return [
        Drawing(
            "ood_generalization",
            "Accuracy of linear probes over the numbers they read, held out and shifted",
            lambda: ood_generalization_figure(measured.table),
        )
    ]


SHOWN = Shown(
    sections=lambda measured: [ood_generalization_section(measured.table)],
    drawings=_drawings,
)
