"""What the report shows of attribute discovery in a text encoder."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from vista.report import grid, style
from vista.report.escape import mathtext
from vista.report.grid import Grid, Section, spread
from vista.report.shown import Drawing, Measured, Shown
from vista.report.table import LongTable, OverSeeds, groups, over_seeds

# Shares of the proposals, with their names in the table and in the figure.
_SHARES = {
    "discovery_precision": ("proposals that are named by a true value", "true name"),
    "discovery_verified": (
        "proposals that separate held-out prompts with their name",
        "separates held-out prompts",
    ),
    "discovery_verified_precision": ("of these, named by a true value", "of these: true name"),
    "discovery_changing": (
        "proposals that bring any value about, more than random directions",
        "changes images",
    ),
    "discovery_changing_precision": ("of these, named by a true value", "of these: true name"),
    "discovery_correct": ("proposals that are both: verified, and named by a true value", "both"),
    "discovery_steered": (
        "named proposals that bring their value about in images",
        "brings its value about",
    ),
}
# The figure shows what is "both" before what changes images.
_BARS = (
    *("discovery_precision", "discovery_verified", "discovery_verified_precision"),
    *("discovery_correct", "discovery_changing", "discovery_changing_precision"),
    "discovery_steered",
)


def attributes_section(table: LongTable) -> Section:
    """Return precision and recall of discovery, beside as many random latents."""
    rows = [
        [grid.name(_SHARES[metric][0]), spread(share), *grid.interval_chance_n(share)]
        for metric in _SHARES
        if (share := _share(table, metric)) is not None
    ]
    rows += [
        [grid.name(f"values found: {attribute}"), spread(recall), *grid.interval_chance_n(recall)]
        for attribute, recall in _recalls(table)
    ]
    return Section(
        "Attributes found in the text encoder",
        "Latents that vary over prompts are proposed and named by words of their top prompts, "
        "without the world's labels; these judge. Words of the prompts' templates tell nothing of "
        "the image: a latent that is named by one is a false proposal. Chance: as many random "
        "latents (of bringing a value about: a random direction). Found are values that a proposal "
        "names which changes images.",
        [Grid(("share of", "value", "95 %", "chance", "n"), rows)],
    )


def attributes_figure(table: LongTable) -> Any | None:
    """Draw a bar for each share of the proposals and for each recall; crosses are chance."""
    bars = [
        (_SHARES[metric][1], share)
        for metric in _BARS
        if (share := _share(table, metric)) is not None
    ]
    bars += [
        (f"found: {attribute}", recall)
        for attribute, recall in _recalls(table)
        if recall is not None
    ]
    if not bars:
        return None
    bars.reverse()  # the first on top
    figure, axes = style.panels(
        [""], ["proposed latents of the text encoder"], height=1.2 + 0.17 * len(bars)
    )
    axis = axes[0, 0]
    for y, (_, share) in enumerate(bars):
        low = share.mean if share.low is None else share.low
        high = share.mean if share.high is None else share.high
        error = [[max(0.0, share.mean - low)], [max(0.0, high - share.mean)]]
        look = style.further_style(1)
        axis.barh(y, share.mean, xerr=error, color=look["color"], height=0.6, alpha=0.8)
        if share.chance is not None:
            axis.plot(share.chance, y, "x", color=style.TEXT_COLOUR, label="random latents")
    names = [mathtext(f"{name} (n = {share.n})") for name, share in bars]
    axis.set_yticks(range(len(bars)), names)
    axis.set_xlim(0, 1.02)
    axis.set_xlabel("share")
    axis.grid(axis="y", visible=False)
    handles, _ = axis.get_legend_handles_labels()
    style.legend_below(figure, handles)
    style.heading(
        figure,
        "Attributes found in the text encoder",
        "Proposals, their order and names come from prompts alone; the world's attributes judge. "
        "Bars: 95 % intervals over proposals (found: over values). Crosses: as many random "
        "latents; for bringing a value about a random direction.",
    )
    return figure


def _share(table: LongTable, metric: str) -> OverSeeds | None:
    """Return a share of the proposals; figures `of` a dictionary are of attributes in images."""
    return over_seeds(table.select(metric, of=None))


def _recalls(table: LongTable) -> Iterator[tuple[str, OverSeeds | None]]:
    """Yield the share of each attribute's values that are found, and of all."""
    for (attribute,), figures in groups(table.select("discovery_recall", of=None), "set"):
        yield attribute, over_seeds(figures)


def _drawings(measured: Measured) -> list[Drawing]:
    return [
        Drawing(
            "attributes",
            "Attributes that latents found: precision and recall",
            lambda: attributes_figure(measured.table),
        )
    ]


SHOWN = Shown(
    sections=lambda measured: [attributes_section(measured.table)],
    drawings=_drawings,
)
