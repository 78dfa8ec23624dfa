"""What the report shows of the ontology."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vista.report.dictionaries import HEAD, Quantity, dictionary_facets, dictionary_rows
from vista.report.grid import Grid, Section
from vista.report.shown import Drawing, Measured, MetricPlace, Shown
from vista.report.table import LongTable

COVERAGE, CLASSES = Quantity("ontological_coverage"), Quantity("class_coverage")
HEIGHT, NAMED = Quantity("synset_height"), Quantity("named_latents")


def ontology_section(table: LongTable, least_n: int = 0) -> Section:
    """Return coverage, height and share of named latents, SAEs beside their controls."""
    tables = {
        (COVERAGE, CLASSES): (
            *("coverage", "95 %", "permuted", "n synsets"),
            *("classes", "95 %", "permuted", "n classes"),
        ),
        (HEIGHT, NAMED): (
            *("height", "95 %", "permuted", "n named"),
            *("named", "95 %", "permuted", "n latents"),
        ),
    }
    return Section(
        "Ontology: which synsets of WordNet latents name",
        "A latent names the deepest synset, but for those above all classes, that most of its top "
        "images lie below. "
        "Coverage: share of the data's inner synsets (two classes or more below them) that a "
        "latent names; latents that stand for one class each cover none of them. Classes: share of "
        "the classes that a latent names alone. Height: of the named synset over the classes, 0 "
        "for a single class. Named: share of latents with a name, however general. Permuted: the "
        "same with the labels of all top images permuted. Coverage grows with the number of "
        "latents, and neurons are fewer: compare it with the permuted level, and with the random "
        "dictionary, which has the SAE's size and sparsity.",
        [
            Grid((*HEAD, *head), dictionary_rows(table, quantities, least_n))
            for quantities, head in tables.items()
        ],
    )


def ontology_figure(table: LongTable) -> Any | None:
    """Draw coverage, height and share of named latents, SAEs beside their controls."""
    return dictionary_facets(
        table,
        {
            COVERAGE: "share of\ninner synsets",
            CLASSES: "share of\nclasses",
            HEIGHT: "mean height\nof a named synset",
            NAMED: "share of\nlatents named",
        },
        title="Ontology: synsets of WordNet that latents name by their top images",
        note="Coverage of inner synsets, and of classes alone; height over the classes (0: one "
        "class), smaller is more specific; share of latents with a name. Ticks: permuted labels. "
        "Error bars: intervals over synsets (coverage) and latents.",
    )


def _note(place: MetricPlace, result: Mapping[str, Any]) -> str | None:
    lacking = result["unknown"]
    return f"Ontology: WordNet lacks {', '.join(lacking)}, which are left out." if lacking else None


def _drawings(measured: Measured) -> list[Drawing]:
    return [
        Drawing(
            "ontology",
            "Share of inner synsets that some latent names, by dictionary",
            lambda: ontology_figure(measured.table),
        )
    ]


SHOWN = Shown(
    sections=lambda measured: [ontology_section(measured.table, measured.settings.least_n)],
    drawings=_drawings,
    note=_note,
)
