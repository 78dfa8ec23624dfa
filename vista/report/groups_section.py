"""Section on groups of the judged images, such as photographs that projectors never saw."""

from __future__ import annotations

from vista.metrics.figure import Figure
from vista.report import grid
from vista.report.grid import Grid, Name, Section, number
from vista.report.table import LongTable, groups, over_seeds

_METRICS = ("caption_names_object", "caption_cross_entropy", "matching_rate", "pointing_game")


def groups_section(table: LongTable, top_k: int, least_n: int = 0) -> Section:
    """Return captions, matching rate and pointing game of each group of images.

    Args:
        table: The figures of groups alone.
        top_k: Number of latents of the matching rate.
        least_n: Figures over fewer things are marked.
    """
    rows = []
    shown = [figure for figure in table.figures if figure.metric in _METRICS]
    points = groups(shown, "set", "encoder", "llm", "sae_weight")
    matching = {"k": top_k, "layer": None}
    for (group, encoder, llm, weight), figures in points:
        of_group = LongTable(figures)
        named = over_seeds(of_group.select("caption_names_object"))
        rows.append(
            [
                Name(group),
                *(grid.name(encoder), grid.name(llm), grid.weight(weight)),
                grid.few_over_seeds(named, least_n),
                *grid.interval_chance_n(named),
                *_with_level(of_group.select("caption_cross_entropy"), least_n),
                *_with_level(of_group.select("matching_rate", of=None, **matching), least_n),
                *_with_level(of_group.select("matching_rate", of="unmasked", **matching), least_n),
                *_with_level(of_group.select("pointing_game", of=None, layer=None), least_n),
            ]
        )
    return Section(
        "Groups of images",
        "Parts of the judged images, such as scenes of photographs that training scenes show "
        "(seen) and of others (held_out). Mean over seeds (smallest–largest). Levels are over the "
        "images of the group, that of the cross-entropy over all. Scenes of one photograph are not "
        "independent, so the intervals are too narrow where scenes are more than photographs. In "
        f"brackets: over fewer than {least_n} things.",
        [
            Grid(
                (
                    *("group", "encoder", "LLM", "λ", "names object", "95 %", "shuffled", "n"),
                    *("cross-entropy", "shuffled", f"match@{top_k}", "shuffled"),
                    *("without masks", "shuffled", "pointing", "chance"),
                ),
                rows,
            )
        ],
    )


def _with_level(figures: list[Figure], least_n: int) -> list[str]:
    summary = over_seeds(figures)
    return [
        grid.few_over_seeds(summary, least_n),
        number(summary.chance if summary else None),
    ]
