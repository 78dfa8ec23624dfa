"""What the report shows of attribute discovery in images."""

from __future__ import annotations

from typing import Any

from vista.report import grid
from vista.report.dictionaries import HEAD, Quantity, dictionary_facets, dictionary_rows
from vista.report.grid import Grid, Section
from vista.report.shown import Drawing, Measured, Shown
from vista.report.table import LongTable, groups, over_seeds

CORRECT, PRECISION = Quantity("discovery_correct"), Quantity("discovery_precision")
RECALL = Quantity("discovery_recall", "all")


def image_attributes_section(table: LongTable, least_n: int = 0) -> Section:
    """Return discovery of each vision SAE and its controls, and which attributes the SAEs find."""
    head = [
        cell
        for name in ("correct", "true name", "values found")
        for cell in (name, "95 %", "permuted", "n")
    ]
    by_attribute = []
    for names, figures in groups(table.select(RECALL.metric, of="sae"), "encoder", "method", "set"):
        summary = over_seeds(figures)
        by_attribute.append(
            [
                *map(grid.name, names),
                grid.few_over_seeds(summary, least_n),
                *grid.interval_chance_n(summary),
            ]
        )
    return Section(
        "Attributes found in images",
        "Latents that fire on some images and not on most are proposed, and named by the word that "
        "their top images' captions have more often than others, or by a judge. Correct: the name "
        "is true, and the latent separates held-out images with it. True name: a value of an "
        "attribute of the data, as most words of a drawn scene's caption are. Values found: by "
        "latents that separate. n counts proposals, or values. Permuted: the same with the "
        "captions of all images permuted. Random latents: as many of the SAE's.",
        [
            Grid((*HEAD, *head), dictionary_rows(table, [CORRECT, PRECISION, RECALL], least_n)),
            Grid(
                ("encoder", "SAE", "attribute", "values found", "95 %", "permuted", "n"),
                by_attribute,
            ),
        ],
    )


def image_attributes_figure(table: LongTable) -> Any | None:
    """Draw the share of proposals that are correct, and of the values that they find."""
    return dictionary_facets(
        table,
        {CORRECT: "share of\nproposals correct", RECALL: "share of\nvalues found"},
        title="Attributes found in images by latents that vary",
        note="Correct: named by a value of a true attribute, and separates held-out images with "
        "it. Found: values that a correct proposal names. Ticks: captions permuted. Error bars: "
        "intervals over proposals and values.",
    )


def _drawings(measured: Measured) -> list[Drawing]:
    return [
        Drawing(
            "image_attributes",
            "Attributes that latents of vision SAEs found in images, by dictionary",
            lambda: image_attributes_figure(measured.table),
        )
    ]


SHOWN = Shown(
    sections=lambda measured: [image_attributes_section(measured.table, measured.settings.least_n)],
    drawings=_drawings,
)
