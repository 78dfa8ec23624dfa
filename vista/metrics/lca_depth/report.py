"""What the report shows of the depth of common ancestors."""

from __future__ import annotations

from vista.report import grid
from vista.report.grid import Grid, Section
from vista.report.shown import Shown
from vista.report.table import LongTable, groups, over_seeds


def lca_depth_section(table: LongTable, least_n: int = 0) -> Section:
    """Return depths and those under permuted classes by group, and the trend of each dictionary."""
    rows, trends = [], []
    for (encoder, sae, k), figures in groups(table.select("lca_depth"), "encoder", "method", "k"):
        depth = over_seeds(figures)
        of_all = over_seeds(table.select("lca_depth_of_all", encoder=encoder, method=sae, k=k))
        rows.append(
            [
                *(grid.name(encoder), grid.name(sae), str(k)),
                grid.few_over_seeds(depth, least_n),
                *grid.interval_chance_n(depth),
                grid.few_over_seeds(of_all, least_n),
                *grid.interval_chance_n(of_all)[:2],
            ]
        )
    for (encoder, sae), figures in groups(table.select("lca_depth_trend"), "encoder", "method"):
        trend = over_seeds(figures)
        trends.append(
            [
                *(grid.name(encoder), grid.name(sae)),
                grid.few_over_seeds(trend, least_n),
                *grid.interval_chance_n(trend),
            ]
        )
    return Section(
        "Depth of what a latent's top images have in common",
        "Depth in WordNet (0: the root) of the lowest common ancestor of two of a latent's top "
        "images, mean over all pairs of them and over the latents of each group of a Matryoshka "
        "dictionary, which ends at the given number of latents; other dictionaries are one group. "
        "Of all: the same of the ancestor of all top images at once, which one stray image takes "
        "to the root. Permuted: the classes of all top images permuted. Then the depth of pairs in "
        "the last group less that in the first. Intervals are over latents.",
        [
            Grid(
                (
                    *("encoder", "SAE", "up to latent", "depth", "95 %", "permuted", "n latents"),
                    *("of all", "95 %", "permuted"),
                ),
                rows,
            ),
            Grid(("encoder", "SAE", "last less first", "95 %", "permuted", "n latents"), trends),
        ],
    )


SHOWN = Shown(
    sections=lambda measured: [lca_depth_section(measured.table, measured.settings.least_n)]
)
