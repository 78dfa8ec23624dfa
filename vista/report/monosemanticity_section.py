"""Sections that set an SAE beside other dictionaries of the same features: monosemanticity here,
ontology."""

from __future__ import annotations

from collections.abc import Sequence

from vista.report import grid
from vista.report.grid import Grid, Name, Section, spread
from vista.report.monosemanticity_figure import DICTIONARIES
from vista.report.table import LongTable, groups, over_seeds
from vista.report.vision_sae_section import block, expansion

# What a row is of, in the columns before its figures.
HEAD = ("encoder", "block", "SAE", "expansion", "dictionary")


def monosemanticity_section(table: LongTable) -> Section:
    """Mean score of each vision SAE and its controls."""
    head = ("score", "95 %", "chance", "n latents")
    return Section(
        "Monosemanticity: are a latent's images alike to another encoder?",
        "Activation-weighted mean similarity of the pairs of a latent's images, averaged over the "
        "latents that fire on two images or more; chance: any two images. Similarity is the cosine "
        "of mean features of another encoder, less what all images have in common. Neurons: the "
        "features' channels. Random dictionary: of the SAE's size and sparsity. The fewer images a "
        "latent fires on, the higher it scores; matched: the random latents weighted so that they "
        "fire on as many images as the SAE's.",
        [Grid((*HEAD, *head), dictionary_rows(table, ["monosemanticity"]))],
    )


def dictionary_rows(table: LongTable, metrics: Sequence[str]) -> list[list[str]]:
    """One row an encoder, SAE and dictionary: value, interval, chance and n of each metric."""
    rows: list[list[str]] = []
    for (encoder, sae, layer), _ in groups(
        table.select(f"{metrics[0]}:sae"), "encoder", "method", "layer"
    ):
        size = expansion(table, encoder, sae)
        for name, shown in DICTIONARIES.items():
            found = [
                table.select(f"{metric}:{name}", encoder=encoder, method=sae) for metric in metrics
            ]
            cells: list[str] = [grid.name(encoder), block(layer), grid.name(sae), size, Name(shown)]
            for summary in map(over_seeds, found):
                cells += [spread(summary), *grid.interval_chance_n(summary)]
            if any(found):
                rows.append(cells)
    return rows
