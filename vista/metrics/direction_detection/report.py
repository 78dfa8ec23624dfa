"""What the report shows of directions as detectors."""

from __future__ import annotations

from vista.metrics.direction_detection.measure import OURS
from vista.report import grid
from vista.report.grid import Grid, Name, Section
from vista.report.shown import Shown
from vista.report.table import LongTable, groups, over_seeds

_HEAD = ("encoder", "LLM", "λ")


def direction_detection_section(table: LongTable, least_n: int = 0) -> Section:
    """Return AUROC by method and block, and the gains of recursive feature machines."""
    scores, gains = [], []
    for (encoder, llm, weight, method, layer), figures in groups(
        table.select("detection_auroc"), "encoder", "llm", "sae_weight", "method", "layer"
    ):
        score = over_seeds(figures)
        scores.append(
            [
                *(grid.name(encoder), grid.name(llm), grid.weight(weight)),
                *(Name(method), grid.layer(layer)),
                grid.few_over_seeds(score, least_n),
                *grid.interval_chance_n(score),
            ]
        )
    for (encoder, llm, weight, rival, layer), figures in groups(
        table.select("detection_gain", method=OURS), "encoder", "llm", "sae_weight", "of", "layer"
    ):
        gain = over_seeds(figures)
        gains.append(
            [
                *(grid.name(encoder), grid.name(llm), grid.weight(weight)),
                *(Name(rival), grid.layer(layer)),
                grid.few_over_seeds(gain, least_n),
                *grid.interval_chance_n(gain)[::2],
            ]
        )
    return Section(
        "Directions as detectors: do projections on them tell a class's patches from others?",
        "AUROC of the projection of test patches on the direction of a class that was fitted in "
        "the residual stream after a block of validation images, mean over classes, which "
        "intervals are over; all: a logistic regression on the projections of all blocks, fitted "
        "on validation images that the directions are not. rfm: top eigenvector of a recursive "
        "feature machine. Random: a random direction with the sign of the difference of means. "
        "Then the AUROC of rfm less that of a rival, paired by class.",
        [
            Grid((*_HEAD, "directions", "block", "AUROC", "95 %", "chance", "n classes"), scores),
            Grid((*_HEAD, "rfm against", "block", "AUROC gained", "95 %", "n classes"), gains),
        ],
    )


SHOWN = Shown(
    sections=lambda measured: [
        direction_detection_section(measured.table, measured.settings.least_n)
    ]
)
