"""Section of the summary about attributes that latents of vision SAEs find by themselves."""

from __future__ import annotations

from vista.report import grid
from vista.report.grid import Grid, Section, spread
from vista.report.monosemanticity_section import HEAD, dictionary_rows
from vista.report.table import LongTable, groups, over_seeds

_METRICS = ("correct", "precision", "recall@all")


def image_attributes_section(table: LongTable) -> Section:
    """Discovery of each vision SAE and its controls, and which attributes the SAEs find."""
    head = [
        cell
        for name in ("correct", "true name", "values found")
        for cell in (name, "95 %", "permuted", "n")
    ]
    prefix, own = "image_discovery_recall@", ":sae"
    recalls = [
        f
        for f in table.of_stage("image_attributes")
        if f.metric.startswith(prefix) and f.metric.endswith(own)
    ]
    by_attribute = []
    for (encoder, sae, metric), figures in groups(recalls, "encoder", "method", "metric"):
        summary = over_seeds(figures)
        names = [encoder, sae, metric.removeprefix(prefix).removesuffix(own)]
        by_attribute.append(
            [*map(grid.name, names), spread(summary), *grid.interval_chance_n(summary)]
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
            Grid(
                (*HEAD, *head),
                dictionary_rows(table, [f"image_discovery_{name}" for name in _METRICS]),
            ),
            Grid(
                ("encoder", "SAE", "attribute", "values found", "95 %", "permuted", "n"),
                by_attribute,
            ),
        ],
    )
