"""Projectors whose visual tokens collapsed: the SAE error is low because there is little left to
reconstruct.

The SAE term has the unit of the squared stream, so a projector can lower it by making all visual
tokens alike. Then the error falls with the tokens' variance, FVU does not, few latents ever fire,
and images no longer differ.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from operator import ge, lt

from vista.config.report import CollapseSettings
from vista.metrics.figure import Figure
from vista.report import grid
from vista.report.compare import BASELINE
from vista.report.grid import Grid, Section, number
from vista.report.table import LongTable, groups


@dataclass(frozen=True)
class Broken:
    """A bound that the visual tokens of a projector break on a layer."""

    layer: int
    what: str
    value: float
    bound: float


@dataclass(frozen=True)
class Collapse:
    """A projector, by its point of the sweep, that breaks bounds of `CollapseSettings`."""

    encoder: str | None
    llm: str | None
    sae_weight: float | None
    seed: int | None
    broken: tuple[Broken, ...]


def collapses(table: LongTable, bounds: CollapseSettings) -> list[Collapse]:
    """Return the collapsed projectors, sorted by point of the sweep."""
    collapsed = []
    for (encoder, llm, weight, seed), figures in groups(
        table.of_stage("reconstruction"), "encoder", "llm", "sae_weight", "seed"
    ):
        broken = [
            bound
            for (layer,), of_layer in groups(figures, "layer")
            for bound in _broken(layer, of_layer, bounds)
        ]
        if broken:
            collapsed.append(Collapse(encoder, llm, weight, seed, tuple(broken)))
    return collapsed


def _broken(layer: int, figures: Sequence[Figure], bounds: CollapseSettings) -> list[Broken]:
    """Return the bounds that the visual tokens of one projector break on a layer."""
    by_name = {(f.metric, f.token_kind): f for f in figures if f.value is not None}
    fvu, fired = by_name.get(("fvu", "image")), by_name.get(("fired_share", "image"))
    share = fired.value if fired else None
    # Nothing asked a projector without the term for tokens that the SAE reads.
    with_term = any(f.sae_weight not in (None, BASELINE) for f in figures)
    between = _relative(
        by_name.get(("image_variance", "image")), by_name.get(("variance", "control"))
    )
    count = f" ({share * fired.n:.0f} of {fired.n})" if fired and share is not None else ""
    checks = (
        ("FVU", fvu.value if fvu and with_term else None, bounds.max_fvu, ge),
        (f"share of latents that ever fire{count}", share, bounds.min_fired_share, lt),
        ("variance between images / variance of text", between, bounds.min_image_variance, lt),
    )
    return [
        Broken(layer, what, value, bound)
        for what, value, bound, breaks in checks
        if value is not None and bound is not None and breaks(value, bound)
    ]


def _relative(figure: Figure | None, text: Figure | None) -> float | None:
    """Return a figure of visual tokens as a multiple of that of text; None if one is not known."""
    if figure is None or text is None or figure.value is None or not text.value:
        return None
    return figure.value / text.value


def collapse_section(collapsed: Sequence[Collapse]) -> Section:
    """Return the warning, one row a broken bound; without rows where nothing collapsed."""
    rows = [
        [
            grid.name(one.encoder),
            grid.name(one.llm),
            grid.weight(one.sae_weight),
            "–" if one.seed is None else str(one.seed),
            grid.layer(broken.layer),
            grid.name(broken.what),
            number(broken.value),
            number(broken.bound),
        ]
        for one in collapsed
        for broken in one.broken
    ]
    return Section(
        "WARNING: collapse",
        "The visual tokens of these projectors hold next to nothing that the SAEs could read: a "
        "lower SAE error of theirs is no success, and their aims do not count as reached. Lower "
        "the weight of the SAE term. The bounds are `report.collapse`.",
        [Grid(("encoder", "LLM", "λ", "seed", "layer", "what", "value", "bound"), rows)],
    )
