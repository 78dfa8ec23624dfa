"""Figure of what latents name in WordNet."""

from __future__ import annotations

from typing import Any

from vista.report import style
from vista.report.monosemanticity_figure import by_dictionary
from vista.report.table import LongTable


def ontology_figure(table: LongTable) -> Any | None:
    """Ontological coverage, height and share of named latents, SAEs beside their controls."""
    figure = by_dictionary(
        table,
        {
            "ontological_coverage": "share of\ninner synsets",
            "class_coverage": "share of\nclasses",
            "synset_height": "mean height\nof a named synset",
            "named_latents": "share of\nlatents named",
        },
    )
    if figure is not None:
        style.heading(
            figure,
            "Ontology: synsets of WordNet that latents name by their top images",
            "Coverage of inner synsets, and of classes alone; height over the classes (0: one "
            "class), smaller is more specific; share of latents with a name. Ticks: permuted "
            "labels. Error bars: bootstrap intervals over synsets (coverage) and latents.",
        )
    return figure
