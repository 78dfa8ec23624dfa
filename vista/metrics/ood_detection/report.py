"""What the report shows of detection out of distribution: a row a score, a column a set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from vista.metrics.figure import Figure
from vista.metrics.ood_detection.measure import FIGURES, OURS, RIVALS, FigureNames
from vista.metrics.ood_detection.scores import SAE_SCORES, SCORES
from vista.report import grid, style
from vista.report.escape import clean, mathtext
from vista.report.facets import Series, XAxis, facets, row_labels
from vista.report.grid import Grid, Name, Section, with_interval
from vista.report.notes import span
from vista.report.shown import Drawing, Measured, Shown
from vista.report.table import LongTable, groups


class OtherSet(NamedTuple):
    """A set of other images: near or far, and its name."""

    kind: str
    name: str

    @property
    def names(self) -> FigureNames:
        """The names of its figures."""
        return FIGURES[self.kind]


def ood_detection_section(table: LongTable) -> Section:
    """Return AUROC and FPR95 of every score on every set."""
    others = _sets(table)
    head = [_head(table, other) for other in others]
    auroc = [(other.names.auroc, other.name) for other in others]
    fpr95 = [(other.names.fpr95, other.name) for other in others]
    gain = [(other.names.knn_gain, other.name) for other in others]
    aurocs: list[list[str]] = []
    fprs: list[list[str]] = []
    for (encoder, sae), _ in groups(table.of_stage("ood_detection"), "encoder", "method"):
        point = {"encoder": encoder, "method": sae}
        who = [grid.name(encoder), grid.name(sae)]
        for score in SCORES:
            aurocs.append([*who, Name(score), *_cells(table, auroc, score, point)])
            fprs.append([*who, Name(score), *_cells(table, fpr95, score, point)])
        for rival in RIVALS:
            difference = Name(f"{OURS} - {rival}")
            aurocs.append([*who, difference, *_cells(table, gain, rival, point)])
    return Section(
        "Out of distribution: do scores from the SAE tell other images from held-out ones?",
        "With 95 % intervals over images; n: held-out images + images of the set. AUROC: chance "
        ".5. FPR95: share of the set that passes where 95 % of the held-out images do; smaller is "
        "better, chance .95. Scores on raw features are the same for every SAE. Controls: the "
        "nearest-neighbour distance on a random dictionary of the SAE's size and sparsity, and a "
        "random score. The last rows are paired differences.",
        [
            Grid(("encoder", "SAE", "AUROC", *head), aurocs),
            Grid(("encoder", "SAE", "FPR95", *head), fprs),
        ],
    )


def ood_detection_figure(table: LongTable) -> Any | None:
    """Draw the AUROC of every score: an SAE's in colour, on raw features and at random in grey."""
    others = _sets(table)
    figures = {other: table.select(other.names.auroc, set=other.name) for other in others}
    all_figures = [figure for of_set in figures.values() for figure in of_set]
    saes = sorted({str(figure.method) for figure in all_figures})
    # Scores that read no SAE are the same for all; the random dictionary is the first one's.
    first = {
        encoder: min(str(figure.method) for figure in of_encoder)
        for (encoder,), of_encoder in groups(all_figures, "encoder")
    }

    def drawn(sae: str | None) -> dict[tuple[Any, ...], list[Figure]]:
        return {
            (figure.encoder, other, figure.of): [figure]
            for other, of_set in figures.items()
            for figure in of_set
            if (figure.of in SAE_SCORES) == (sae is not None)
            and figure.method == (sae or first[figure.encoder])
        }

    looks = [
        (f"SAE {mathtext(sae, 24)}", drawn(sae), style.further_style(place))
        for place, sae in enumerate(saes)
    ]
    return facets(
        [
            Series(name, by_key, {**look, "linestyle": "none"})
            for name, by_key, look in (*looks, ("no SAE", drawn(None), style.grey(0)))
        ],
        row_labels(sorted(first), "AUROC"),
        {other: f"{other.kind}: {other.name}" for other in others},
        XAxis(names={score: score.replace("_", " ") for score in SCORES}, rotation=50, spread=0.5),
        title="Out of distribution: images of other sets told from held-out ones",
        note=f"n = {span([figure.n for figure in all_figures])} images of both; error bars: "
        "intervals over images. The random dictionary has the size and sparsity of the "
        "first SAE.",
        limits=(0, 1.02),
        chance_line=True,
        size=(2.9, 2.6),
        legend_columns=4,
    )


def _cells(
    table: LongTable, columns: Sequence[tuple[str, str]], of: str, point: Mapping[str, Any]
) -> list[str]:
    """Return the cells of a row: its figure of each column's name and set."""
    return [
        with_interval(table.select(metric, of=of, set=name, **point)) for metric, name in columns
    ]


def _sets(table: LongTable) -> list[OtherSet]:
    """Return the near sets, then the far ones."""
    return [
        OtherSet(kind, name)
        for kind, names in FIGURES.items()
        for name in sorted({str(figure.set) for figure in table.select(names.auroc)})
    ]


def _head(table: LongTable, other: OtherSet) -> str:
    """Return a set's column head: its name, and n of either side."""
    n_out = table.select(other.names.images, set=other.name)[0].n
    n = table.select(other.names.auroc, of=SCORES[0], set=other.name)[0].n
    return f"{clean(f'{other.kind}:{other.name}')}, n = {n - n_out} + {n_out}"


def _drawings(measured: Measured) -> list[Drawing]:
    return [
        Drawing(
            "ood_detection",
            "AUROC of every score, by set of images",
            lambda: ood_detection_figure(measured.table),
        )
    ]


SHOWN = Shown(
    sections=lambda measured: [ood_detection_section(measured.table)],
    drawings=_drawings,
)
