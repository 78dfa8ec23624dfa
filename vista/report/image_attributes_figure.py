"""Figure of attribute discovery in images: SAEs beside their controls."""

from __future__ import annotations

from typing import Any

from vista.report import style
from vista.report.monosemanticity_figure import by_dictionary
from vista.report.table import LongTable


def image_attributes_figure(table: LongTable) -> Any | None:
    """Share of proposals that are right, and of the world's values that they find."""
    figure = by_dictionary(
        table,
        {
            "image_discovery_correct": "share of\nproposals correct",
            "image_discovery_recall@all": "share of\nvalues found",
        },
    )
    if figure is not None:
        style.heading(
            figure,
            "Attributes found in images by latents that vary",
            "Correct: named by a value of a true attribute, and separates held-out images with it. "
            "Found: values that a correct proposal names. Ticks: captions permuted. Error bars: "
            "bootstrap intervals over proposals and values.",
        )
    return figure
