"""Precision and recall of attribute discovery: how many proposed latents are attributes of the
data, and how many values of these attributes are proposed.

Proposals, their names and their order are made without the data's attributes, which serve here as
ground truth. Defined here: of arXiv 2508.11277 only the abstract is public.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import Field

from vista.metrics.figure import Figure
from vista.metrics.rates import rate_interval
from vista.metrics.result import Estimate, MetricResult, estimate


@dataclass(frozen=True)
class Proposal:
    """One latent that is proposed as an attribute.

    Attributes:
        latent: Number of the latent.
        name: Its name; None where it has none.
        auroc: AUROC of its activation for held-out items (prompts or images) with its name; NaN
            without a name.
        change: Share of images that show a value, edited less unedited, where the latent is added
            to prompts without its name; the largest over all values that probes classify. NaN
            where it was not added.
        random_change: The same with a random direction.
        gain: The same share for the value that its name is; NaN where no probe classifies it.
        random_gain: The same with a random direction.
    """

    latent: int
    name: str | None
    auroc: float
    change: float = float("nan")
    random_change: float = float("nan")
    gain: float = float("nan")
    random_gain: float = float("nan")


Kept = tuple[list[Proposal], list[Proposal]]


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
    correct: Estimate = Field(description="Share of the proposals that are verified and precise.")
    changing: Estimate | None = Field(
        description="Share of the proposals that, added to prompts, bring any value about in more "
        "images than random directions do; None where none was added."
    )
    changing_precision: Estimate | None = Field(description="Precision among the changing.")
    steered: Estimate | None = Field(
        description="Share of the proposals with a name that probes know which bring it about "
        "when they are added; chance: a random direction instead."
    )
    recall: dict[str, Estimate] = Field(
        description='Share of the values of each attribute (and of "all") that a changing '
        "proposal names, or a verified one where none was added. n counts values."
    )

    def figures(self) -> list[Figure]:
        """Return the figures as rows of the long table; `set` is the attribute of a recall."""
        shares = {
            "discovery_precision": self.precision,
            "discovery_verified": self.verified,
            "discovery_verified_precision": self.verified_precision,
            "discovery_correct": self.correct,
            "discovery_changing": self.changing,
            "discovery_changing_precision": self.changing_precision,
            "discovery_steered": self.steered,
        }
        return [
            *(share.figure(name) for name, share in shares.items() if share is not None),
            *(
                recall.figure("discovery_recall", set=attribute)
                for attribute, recall in self.recall.items()
            ),
        ]


def attribute_discovery(
    proposals: Sequence[Proposal],
    random: Sequence[Proposal],
    truth: Mapping[str, Sequence[str]],
    *,
    min_auroc: float,
    min_gain: float,
    max_random: float = 0.05,
    level: float,
) -> AttributesResult:
    """Compare proposals, and as many random latents, with the attributes of the data.

    Args:
        proposals: Proposals in the order of their rank.
        random: Random latents with their names.
        truth: Values of each attribute.
        min_auroc: Smallest AUROC of a latent that separates items with its name.
        min_gain: Smallest gain of a latent that brings its value about.
        max_random: Share of the random directions that may change more than a latent that counts
            as changing images.
        level: Coverage of the intervals.
    """
    values = {value for of_attribute in truth.values() for value in of_attribute}

    def share(hits: Sequence[bool], chance: Sequence[bool]) -> Estimate:
        interval = rate_interval(np.array(hits, dtype=float), np.ones(len(hits)), level)
        return estimate(interval, len(hits), float(np.mean(chance)) if len(chance) else None)

    def verified(passes: Callable[[Proposal], bool]) -> tuple[Estimate, Estimate, Kept]:
        """Return the share of proposals that pass, their precision, and what passes of both."""
        kept = [p for p in proposals if passes(p)], [p for p in random if passes(p)]
        passing = share([passes(p) for p in proposals], [passes(p) for p in random])
        return passing, share(named(kept[0]), named(kept[1])), kept

    def named(latents: Sequence[Proposal]) -> list[bool]:
        return [latent.name in values for latent in latents]

    separating, separating_precision, kept = verified(lambda p: p.auroc >= min_auroc)
    changing = changing_precision = steered = None
    if changes := [p.random_change for p in proposals if not np.isnan(p.random_change)]:
        limit = float(np.quantile(changes, 1 - max_random))
        changing, changing_precision, kept = verified(lambda p: p.change > limit)
        known = [p for p in proposals if not np.isnan(p.gain)]
        steered = share(
            [p.gain >= min_gain for p in known], [p.random_gain >= min_gain for p in known]
        )
    recall = {}
    for attribute, of_attribute in {**truth, "all": sorted(values)}.items():
        hits, chance = (
            [value in {p.name for p in latents} for value in of_attribute] for latents in kept
        )
        recall[attribute] = share(hits, chance)
    return AttributesResult(
        precision=share(named(proposals), named(random)),
        verified=separating,
        verified_precision=separating_precision,
        correct=share(
            *(
                [p.name in values and p.auroc >= min_auroc for p in latents]
                for latents in (proposals, random)
            )
        ),
        changing=changing,
        changing_precision=changing_precision,
        steered=steered,
        recall=recall,
    )
