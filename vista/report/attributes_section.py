"""Section of the summary about attributes that latents of a text encoder find by themselves."""

from __future__ import annotations

from vista.report import grid
from vista.report.grid import Grid, Section, spread
from vista.report.table import LongTable, over_seeds

_FIGURES = (
    ("discovery_precision", "proposals that are named by a true value"),
    ("discovery_verified", "proposals that separate held-out prompts with their name"),
    ("discovery_precision:verified", "of these, named by a true value"),
    ("discovery_changing", "proposals that bring any value about, more than random directions"),
    ("discovery_precision:changing", "of these, named by a true value"),
    ("discovery_correct", "proposals that are both: verified, and named by a true value"),
    ("discovery_steered", "named proposals that bring their value about in images"),
)


def attributes_section(table: LongTable) -> Section:
    """Precision and recall of discovery, beside as many random latents."""
    rows = []
    for metric, text in _FIGURES:
        found = over_seeds(table.select(metric))
        if found is not None:
            rows.append([grid.name(text), spread(found), *grid.interval_chance_n(found)])
    prefix = "discovery_recall@"
    for figure in table.of_stage("attribute_discovery"):
        if figure.metric.startswith(prefix):
            attribute = figure.metric.removeprefix(prefix)
            found = over_seeds([figure])
            cells = [spread(found), *grid.interval_chance_n(found)]
            rows.append([grid.name(f"values found: {attribute}"), *cells])
    return Section(
        "Attributes found in the text encoder",
        "Latents that vary over prompts are proposed and named by words of their top prompts, "
        "without the world's labels; these judge. Words of the prompts' templates tell nothing of "
        "the image: a latent that is named by one is a false proposal. Chance: as many random "
        "latents (of bringing a value about: a random direction). Found are values that a proposal "
        "names which changes images.",
        [Grid(("share of", "value", "95 %", "chance", "n"), rows)],
    )
