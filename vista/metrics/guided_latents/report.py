"""What the report shows of guided dictionaries."""

from __future__ import annotations

from vista.metrics.guided_latents.measure import (
    DEFINED,
    GUIDED,
    PLAIN,
    PRE,
    PROBE,
    SHUFFLED,
    SHUFFLED_PRE,
)
from vista.report import grid
from vista.report.grid import Grid, Name, Section
from vista.report.shown import Shown
from vista.report.table import LongTable, groups, over_seeds

CLASSIFIERS = {
    DEFINED: "defined latents",
    PRE: "defined latents, before topk",
    PLAIN: "best latents without a guide",
    PROBE: "linear probe",
    SHUFFLED: "defined latents, shuffled annotation",
    SHUFFLED_PRE: "the same, before topk",
}
_SAES = {GUIDED: "guided", PLAIN: "without a guide", "difference": "guided less the other"}
_HEAD = ("encoder", "SAE")


def guided_latents_section(table: LongTable, least_n: int = 0) -> Section:
    """Return the classifiers of concepts, then what guidance costs: explained variance, and the
    best latents of classes that none was defined for."""
    rows, costs = [], []
    for (encoder, sae), _ in groups(table.select("guided_auroc", of=DEFINED), "encoder", "method"):
        place = {"encoder": encoder, "method": sae}
        head = [grid.name(encoder), grid.name(sae)]
        for classifier, name in CLASSIFIERS.items():
            cells: list[str] = []
            for metric in ("guided_auroc", "guided_f1"):
                figure = over_seeds(table.select(metric, of=classifier, **place))
                cells += [grid.few_over_seeds(figure, least_n), *grid.interval_chance_n(figure)]
            for metric in ("guided_auroc_difference", "guided_f1_difference"):
                figure = over_seeds(table.select(metric, of=classifier, **place))
                cells += [
                    grid.few_over_seeds(figure, least_n),
                    grid.interval_chance_n(figure)[0],
                ]
            rows.append([*head, Name(name), *cells])
        for of, name in _SAES.items():
            explained = (
                table.select("guided_variance_difference", of=PLAIN, **place)
                if of == "difference"
                else table.select("guided_explained_variance", of=of, **place)
            )
            cells = []
            for figures in (
                explained,
                table.select("guided_left_out_auroc", of=of, **place),
                table.select("guided_left_out_f1", of=of, **place),
            ):
                figure = over_seeds(figures)
                shown = grid.interval_chance_n(figure)
                cells += [grid.few_over_seeds(figure, least_n), shown[0], shown[-1]]
            costs.append([*head, Name(name), *cells])
    return Section(
        "Guided dictionaries: do latents that were told their concept find it?",
        "Latents as classifiers of held-out patches, mean over concepts; chance of F1: every patch "
        "is said to have the concept. Defined latents: each was told its concept in training. Best "
        "latents: of the same SAE without a guide, the latent of the largest AUROC on other "
        "images. Shuffled: the annotation was permuted among patches. Thresholds are chosen on the "
        "images that latents are chosen on. Gained: defined latents less the row's. Then, what "
        "guidance costs: explained variance of held-out patches (n images), and the best latent of "
        "each class that was left out (n classes). Intervals are over concepts, classes or images.",
        [
            Grid(
                (
                    *(*_HEAD, "classifier", "AUROC", "95 %", "chance", "n"),
                    *("F1", "95 %", "chance", "n"),
                    *("AUROC gained", "95 %", "F1 gained", "95 %"),
                ),
                rows,
            ),
            Grid(
                (
                    *(*_HEAD, "of", "explained variance", "95 %", "n"),
                    *("left out: AUROC", "95 %", "n", "left out: F1", "95 %", "n"),
                ),
                costs,
            ),
        ],
    )


SHOWN = Shown(
    sections=lambda measured: [guided_latents_section(measured.table, measured.settings.least_n)]
)
