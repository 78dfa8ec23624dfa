"""What the report shows of monosemanticity."""

from __future__ import annotations

from typing import Any

from vista.report.dictionaries import HEAD, Quantity, dictionary_facets, dictionary_rows
from vista.report.grid import Grid, Section
from vista.report.shown import Drawing, Measured, Shown
from vista.report.table import LongTable

SCORE = Quantity("monosemanticity")


def monosemanticity_section(table: LongTable, least_n: int = 0) -> Section:
    """Return the mean score of each vision SAE and its controls."""
    head = ("score", "95 %", "chance", "n latents")
    return Section(
        "Monosemanticity: are a latent's images alike to another encoder?",
        "Activation-weighted mean similarity of the pairs of a latent's images, averaged over the "
        "latents that fire on two images or more; chance: any two images. Similarity is the cosine "
        "of mean features of another encoder, less what all images have in common. Neurons: the "
        "features' channels. Random dictionary: of the SAE's size and sparsity. The fewer images a "
        "latent fires on, the higher it scores; matched: the random latents weighted so that they "
        "fire on as many images as the SAE's.",
        [Grid((*HEAD, *head), dictionary_rows(table, [SCORE], least_n))],
    )


def monosemanticity_figure(table: LongTable) -> Any | None:
    """Draw the mean score of each vision SAE, the raw neurons and a random dictionary."""
    return dictionary_facets(
        table,
        {SCORE: "mean similarity\nof a latent's images"},
        title="Monosemanticity: are a latent's images alike to another encoder?",
        note="Activation-weighted mean cosine of image pairs in the other encoder's space, "
        "centred. Matched: random latents that fire on as many images as the SAE's. Ticks: any two "
        "images. Error bars: intervals over latents.",
    )


def _drawings(measured: Measured) -> list[Drawing]:
    return [
        Drawing(
            "monosemanticity",
            "Monosemanticity score by dictionary, with the level of any two images",
            lambda: monosemanticity_figure(measured.table),
        )
    ]


SHOWN = Shown(
    sections=lambda measured: [monosemanticity_section(measured.table, measured.settings.least_n)],
    drawings=_drawings,
    pictures=("top_images.png", "Top images of the most monosemantic latents"),
)
