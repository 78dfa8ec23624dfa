"""Section of the summary about what latents name in WordNet."""

from __future__ import annotations

from vista.report.grid import Grid, Section
from vista.report.monosemanticity_section import dictionary_rows
from vista.report.table import LongTable


def ontology_section(table: LongTable) -> Section:
    """Ontological coverage, height and share of named latents, with raw neurons."""
    metrics = ["ontological_coverage", "synset_height", "named_latents"]
    head = (
        *("coverage", "95 %", "permuted", "n synsets"),
        *("height", "95 %", "permuted", "n named"),
        *("named", "95 %", "permuted", "n latents"),
    )
    return Section(
        "Ontology: which synsets of WordNet latents name",
        "A latent names the deepest synset below the root that most of its top images lie below. "
        "Coverage: share of the data's inner synsets (two classes or more below them) that a "
        "latent names. Height: of the named synset over the classes, 0 for a single class. Named: "
        "share of latents with a name, however general. Permuted: the same with the labels of all "
        "top images permuted.",
        [Grid(("encoder", "SAE", "dictionary", *head), dictionary_rows(table, metrics))],
    )
