"""Interventions in the report: a method at a point, and paired differences of two methods."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from vista.config.edits import EditControl
from vista.config.interventions import Task
from vista.metrics.intervention.captions import ItemKey
from vista.metrics.intervention.measure import (
    CONTROL,
    InterventionResult,
    paired_ms_difference,
    shared_items,
)
from vista.report.table import OverSeeds

# Methods whose directions are not of the concept: drawn in grey.
CONTROL_METHODS = frozenset({"random", "random_latent", "wrong_concept"})
# Resamples, level and seed of the paired bootstrap of two methods.
_RESAMPLES, _LEVEL, _SEED = 1000, 0.95, 0


@dataclass(frozen=True)
class Intervention:
    """One removal or replacement: a method at one point of the sweep.

    Attributes:
        encoder, llm, sae_weight, seed: The point.
        method: Name of the method in the config; `result.method` is the method of its directions.
        result: The figures.
        scores: Each test item's score at the chosen coefficient, by place of the edit; of a
            control at the coefficient that was chosen for its method.
        best_scores: Of a control: the same at its own best coefficient.
    """

    encoder: str
    llm: str
    sae_weight: float
    seed: int
    method: str
    result: InterventionResult
    scores: Mapping[str, Mapping[ItemKey, int]]
    best_scores: Mapping[str, Mapping[ItemKey, int]] = field(default_factory=dict)

    @property
    def control(self) -> EditControl | None:
        """The control of the method that its captions are of; None for the method itself."""
        return self.result.control

    @property
    def task(self) -> Task:
        """The task: removal or replacement."""
        return self.result.metric_task

    @property
    def is_control(self) -> bool:
        """Whether its directions are not of the concept."""
        return self.result.method in CONTROL_METHODS

    @property
    def is_text_latent(self) -> bool:
        """Whether it is the method under test: labelled latents of the LLM's SAEs."""
        return self.result.method in ("latent", "latent_at")

    @property
    def is_vision_only(self) -> bool:
        """Whether it edits the encoder's features and needs no text SAE."""
        return self.result.space == "features"


@dataclass(frozen=True)
class Side:
    """One side of a comparison: a method at one place and weight, over seeds."""

    method: str
    place: str
    sae_weight: float
    by_seed: Mapping[int, Intervention]

    @property
    def ms(self) -> float:
        """Mean MS over seeds."""
        values = [_mean(seed.scores[self.place]) for seed in self.by_seed.values()]
        return sum(values) / len(values)

    @property
    def is_vision_only(self) -> bool:
        """Whether it edits the encoder's features."""
        return all(seed.is_vision_only for seed in self.by_seed.values())

    @property
    def is_control(self) -> bool:
        """Whether its directions are not of the concept."""
        return any(seed.is_control for seed in self.by_seed.values())

    @property
    def is_text_latent(self) -> bool:
        """Whether it is the method under test."""
        return all(seed.is_text_latent for seed in self.by_seed.values())


@dataclass(frozen=True)
class Comparison:
    """One side less another, on the same items and seeds.

    Attributes:
        ours: Mean MS of the one side over the shared seeds.
        theirs: That of the other side.
        difference: Their difference: `low` and `high` are the ends of one bootstrap over images of
            the mean over seeds, `smallest` and `largest` are differences of single seeds.
    """

    ours: float
    theirs: float
    difference: OverSeeds

    @property
    def gain(self) -> float | None:
        """The difference relative to the other side's MS."""
        return self.difference.mean / self.theirs if self.theirs > 0 else None


def compare(ours: Side, theirs: Side) -> Comparison | None:
    """Compare two sides on the seeds that both have, and on the items of all of these."""
    seeds = sorted(set(ours.by_seed) & set(theirs.by_seed))
    our_scores = [ours.by_seed[seed].scores[ours.place] for seed in seeds]
    their_scores = [theirs.by_seed[seed].scores[theirs.place] for seed in seeds]
    shared = shared_items([*our_scores, *their_scores])
    if not shared:
        return None
    paired = paired_ms_difference(
        our_scores, their_scores, seed=_SEED, resamples=_RESAMPLES, level=_LEVEL
    )
    our_ms, their_ms = (
        [_mean({key: scores[key] for key in shared}) for scores in by_seed]
        for by_seed in (our_scores, their_scores)
    )
    gaps = [a - b for a, b in zip(our_ms, their_ms, strict=True)]
    return Comparison(
        ours=sum(our_ms) / len(seeds),
        theirs=sum(their_ms) / len(seeds),
        difference=OverSeeds(
            mean=sum(gaps) / len(seeds),
            smallest=min(gaps),
            largest=max(gaps),
            low=paired.ci_low,
            high=paired.ci_high,
            chance=None,
            n=paired.n,
            n_seeds=len(seeds),
        ),
    )


def sides(interventions: Sequence[Intervention]) -> list[Side]:
    """Group interventions of one encoder, LLM and task over seeds; controls outside left out."""
    by_side: dict[tuple[str, str, float], dict[int, Intervention]] = {}
    for one in interventions:
        for place in one.scores:
            if place != CONTROL:
                key = (one.method, place, one.sae_weight)
                by_side.setdefault(key, {})[one.seed] = one
    return [Side(*key, by_seed) for key, by_seed in sorted(by_side.items())]


def best_vision_only(candidates: Sequence[Side]) -> Side | None:
    """Return the vision-only side with the largest test MS; of equal ones the first by name."""
    vision = [side for side in candidates if side.is_vision_only and not side.is_control]
    return max(vision, key=lambda side: side.ms, default=None)


def _mean(scores: Mapping[ItemKey, int]) -> float:
    return sum(scores.values()) / len(scores)
