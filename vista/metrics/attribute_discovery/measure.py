"""Attributes that latents find by themselves: how many proposals are attributes of the world, and
how many of these were proposed.

Proposals, their names and their order come from prompts alone; the world's attributes are told
here, to judge. The definitions are ours: of arXiv 2508.11277 the abstract alone is public.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import Field

from vista.metrics.bootstrap import bootstrap_mean
from vista.metrics.figure import Figure
from vista.metrics.result import Estimate, MetricResult, estimate


@dataclass(frozen=True)
class Proposal:
    """One latent that is proposed as an attribute.

    Attributes:
        latent: number of the latent.
        name: its name; None where it has none.
        auroc: of its activation for held-out prompts with its name; NaN without a name.
        change: when it is added to prompts without its name, the share of images that show a value,
            less that of unedited ones; the largest of all values that probes know. NaN where it
            was not added.
        random_change: the same with a random direction.
        gain: the same share of its name; NaN where no probe knows the name.
        random_gain: the same with a random direction.
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
        """Return the figures as rows of the long table, recall by attribute."""
        figures = {
            "discovery_precision": self.precision,
            "discovery_verified": self.verified,
            "discovery_precision:verified": self.verified_precision,
            "discovery_correct": self.correct,
            "discovery_changing": self.changing,
            "discovery_precision:changing": self.changing_precision,
            "discovery_steered": self.steered,
            **{f"discovery_recall@{name}": each for name, each in self.recall.items()},
        }
        return [each.figure(name) for name, each in figures.items() if each is not None]


def attribute_discovery(
    proposals: Sequence[Proposal],
    random: Sequence[Proposal],
    truth: Mapping[str, Sequence[str]],
    *,
    min_auroc: float,
    min_gain: float,
    max_random: float = 0.05,
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
        max_random: share of the random directions that may bring more about than a latent that
            counts as changing images.
        seed: of the bootstrap.
        resamples: of the bootstrap.
        level: coverage of the intervals.
    """
    values = {value for found in truth.values() for value in found}

    def share(hits: Sequence[bool], chance: Sequence[bool]) -> Estimate:
        interval = bootstrap_mean(np.array(hits, dtype=float), seed, resamples, level)
        return estimate(interval, len(hits), float(np.mean(chance)) if len(chance) else None)

    def verified(by: Callable[[Proposal], bool]) -> tuple[Estimate, Estimate, Kept]:
        """Share of what passes, precision of that, and what passes of both."""
        kept = [each for each in proposals if by(each)], [each for each in random if by(each)]
        passed = share([by(each) for each in proposals], [by(each) for each in random])
        return passed, share(named(kept[0]), named(kept[1])), kept

    def named(found: Sequence[Proposal]) -> list[bool]:
        return [each.name in values for each in found]

    separating, separating_precision, kept = verified(lambda each: each.auroc >= min_auroc)
    changing = changing_precision = steered = None
    if changes := [each.random_change for each in proposals if not np.isnan(each.random_change)]:
        limit = float(np.quantile(changes, 1 - max_random))
        changing, changing_precision, kept = verified(lambda each: each.change > limit)
        known = [each for each in proposals if not np.isnan(each.gain)]
        steered = share(
            [each.gain >= min_gain for each in known],
            [each.random_gain >= min_gain for each in known],
        )
    recall = {}
    for name, wanted in {**truth, "all": sorted(values)}.items():
        hits, chance = (
            [value in {each.name for each in found} for value in wanted] for found in kept
        )
        recall[name] = share(hits, chance)
    return AttributesResult(
        precision=share(named(proposals), named(random)),
        verified=separating,
        verified_precision=separating_precision,
        correct=share(
            *(
                [each.name in values and each.auroc >= min_auroc for each in found]
                for found in (proposals, random)
            )
        ),
        changing=changing,
        changing_precision=changing_precision,
        steered=steered,
        recall=recall,
    )
