"""Section of the summary about what latents name in WordNet."""

from __future__ import annotations

from vista.report.grid import Grid, Section
from vista.report.monosemanticity_section import HEAD, dictionary_rows
from vista.report.table import LongTable


def ontology_section(table: LongTable) -> Section:
    """Ontological coverage, height and share of named latents, SAEs beside their controls."""
    tables = {
        ("ontological_coverage", "class_coverage"): (
            *("coverage", "95 %", "permuted", "n synsets"),
            *("classes", "95 %", "permuted", "n classes"),
        ),
        ("synset_height", "named_latents"): (
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
        [Grid((*HEAD, *head), dictionary_rows(table, of)) for of, head in tables.items()],
    )
