"""Attributes that latents find by themselves: how many proposals are attributes of the world, and
how many of these were proposed.

Proposals, their names and their order come from prompts alone; the world's attributes are told
here, to judge. The definitions are ours: of arXiv 2508.11277 the abstract alone is public.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import Field

from vista.metrics.bootstrap import bootstrap_mean
from vista.metrics.result import Estimate, MetricResult, estimate
from vista.metrics.rows import Row


@dataclass(frozen=True)
class Proposal:
    """One latent that is proposed as an attribute.

    Attributes:
        latent: number of the latent.
        name: its name; None where it has none.
        auroc: of its activation for held-out prompts with its name; NaN without a name.
        gain: share of images that show its name, steered less unedited; NaN where it was not
            steered, as no probe knows the name.
        random_gain: the same with a random direction.
    """

    latent: int
    name: str | None
    auroc: float
    gain: float = float("nan")
    random_gain: float = float("nan")


class AttributesResult(MetricResult):
    """Precision and recall of attribute discovery; chance: as many random latents with a name."""

    precision: Estimate = Field(
        description="Share of the proposals whose name is a value of a true attribute. n counts "
        "proposals."
    )
    verified: Estimate = Field(
        description="Share of the proposals that separate held-out prompts with their name."
    )
    verified_precision: Estimate = Field(description="Precision among the verified.")
    steered: Estimate = Field(
        description="Share of the proposals with a name that probes know which bring it about "
        "when they are added; chance: a random direction instead."
    )
    recall: dict[str, Estimate] = Field(
        description='Share of the values of each attribute (and of "all") that a verified '
        "proposal names. n counts values."
    )

    def rows(self) -> list[Row]:
        """Return the figures as rows of the long table, recall by attribute."""
        return [
            self.precision.row("discovery_precision"),
            self.verified.row("discovery_verified"),
            self.verified_precision.row("discovery_precision:verified"),
            self.steered.row("discovery_steered"),
            *(each.row(f"discovery_recall@{name}") for name, each in self.recall.items()),
        ]


def attribute_discovery(
    proposals: Sequence[Proposal],
    random: Sequence[Proposal],
    truth: Mapping[str, Sequence[str]],
    *,
    min_auroc: float,
    min_gain: float,
    seed: int,
    resamples: int,
    level: float,
) -> AttributesResult:
    """Judge proposals, and as many random latents, by the world's attributes.

    Args:
        proposals: in the order of their rank.
        random: random latents with the names that they have.
        truth: values of each attribute.
        min_auroc: from which a latent separates prompts with its name.
        min_gain: from which steering brings a value about.
        seed: of the bootstrap.
        resamples: of the bootstrap.
        level: coverage of the intervals.
    """
    values = {value for found in truth.values() for value in found}

    def share(hits: Sequence[bool], chance: Sequence[bool]) -> Estimate:
        interval = bootstrap_mean(np.array(hits, dtype=float), seed, resamples, level)
        return estimate(interval, len(hits), float(np.mean(chance)) if len(chance) else None)

    def separating(found: Sequence[Proposal]) -> list[Proposal]:
        return [each for each in found if each.auroc >= min_auroc]

    def named(found: Sequence[Proposal]) -> list[bool]:
        return [each.name in values for each in found]

    kept, kept_random = separating(proposals), separating(random)
    steered = [each for each in proposals if not np.isnan(each.gain)]
    recall = {}
    for name, wanted in {**truth, "all": sorted(values)}.items():
        hits, chance = (
            [value in {each.name for each in found} for value in wanted]
            for found in (kept, kept_random)
        )
        recall[name] = share(hits, chance)
    return AttributesResult(
        precision=share(named(proposals), named(random)),
        verified=share(
            [e.auroc >= min_auroc for e in proposals], [e.auroc >= min_auroc for e in random]
        ),
        verified_precision=share(named(kept), named(kept_random)),
        steered=share(
            [each.gain >= min_gain for each in steered],
            [each.random_gain >= min_gain for each in steered],
        ),
        recall=recall,
    )
