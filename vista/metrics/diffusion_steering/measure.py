"""Steering a text-to-image pipeline: does an edit of the prompt's stream bring the value that was
asked for, and does it leave the other attributes alone?

What an image shows is what probes say of it; an edited image is compared with the unedited one of
the same prompt and noise. The definitions are ours: of arXiv 2508.11277 the abstract alone is
public.

Legend: b prompt, n prompt or image, s latent, c concept.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from vista.metrics.bootstrap import bootstrap, bootstrap_mean, bootstrap_ratio
from vista.metrics.figure import Figure
from vista.metrics.result import Estimate, MetricResult, estimate

Kind = Literal["add", "ablate"]
Said = Mapping[str, NDArray[np.str_]]
FloatArray = NDArray[np.float64]

# Edits that a latent is compared with. A random direction is the chance level of every figure.
LATENT, RANDOM, RANDOM_LATENT, PROMPT = "latent", "random_direction", "random_latent", "prompt"
# AUROCs that differ by less are equal.
_SAME = 1e-9
_UNDEFINED = (float("nan"),) * 3
METHODS = (LATENT, RANDOM, RANDOM_LATENT, PROMPT)


@dataclass(frozen=True)
class Steered:
    """What probes say of the images of some prompts before and after one edit.

    Attributes:
        kind: a value is added to prompts without it, or ablated from prompts with it.
        attribute: the attribute of the value.
        target: the value.
        method: one of METHODS.
        coefficient: length of the edit; 0 where it has none.
        prompt_b: number of each prompt, by which targets are paired.
        before: by attribute, the values that probes say of unedited images [b].
        after: of edited images [b].
    """

    kind: Kind
    attribute: str
    target: str
    method: str
    coefficient: float
    prompt_b: NDArray[np.int64]
    before: Said
    after: Said

    @property
    def gain_b(self) -> FloatArray:
        """1 where the target came (or, ablated, went), -1 where the contrary happened, else 0."""
        was, now = (
            (said[self.attribute] == self.target).astype(float)
            for said in (self.before, self.after)
        )
        return np.asarray(now - was if self.kind == "add" else was - now)

    def drift_b(self, readable: Collection[str]) -> FloatArray:
        """Share of the other attributes, of those that can be read, whose value changed; 0 where
        there is none."""
        others = [name for name in sorted(readable) if name != self.attribute]
        changed = [self.before[name] != self.after[name] for name in others]
        return np.mean(changed, axis=0) if changed else np.zeros(len(self.prompt_b))


class MethodFigures(BaseModel):
    """One method on one attribute, at the coefficients that it chose."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Kind = Field(description="add: a value to prompts without it; ablate: from those with it")
    attribute: str = Field(description="The attribute whose values are steered.")
    method: str = Field(description="What edits: latent, random_direction, random_latent, prompt.")
    gain: Estimate = Field(
        description="Share of images that show the target, edited less unedited (ablate: the "
        "contrary); chance: a random direction's. n counts images."
    )
    gain_over_random: Estimate = Field(
        description="The same less the random direction's on the same prompts; chance 0."
    )
    drift: Estimate = Field(
        description="Share of the other readable attributes that probes say anew; chance: a "
        "random direction's. Undefined where no other is readable."
    )


class SteeringResult(MetricResult):
    """Gains and drifts of all methods, and what they rest on."""

    methods: list[MethodFigures] = Field(description="By kind, attribute and method.")
    accuracy: dict[str, Estimate] = Field(
        description="Probes on held-out real images, by attribute; chance: the most frequent "
        "value always."
    )
    adherence: dict[str, Estimate] = Field(
        description="Share of unedited images that show what their prompt says, by attribute; "
        "chance: the same with prompts of other images."
    )
    readable: list[str] = Field(
        description="Attributes in which drift is measured: those that unedited images show as "
        "their prompts say, their adherence's whole interval above chance."
    )
    selectivity: dict[str, Estimate] = Field(
        description="AUROC of the chosen latents on the prompts that they were chosen on, mean "
        "over targets, by attribute; chance .5."
    )

    def figures(self) -> list[Figure]:
        """Return steering_gain:METHOD@ATTRIBUTE and its like (ablation_*), then accuracies."""
        rows = []
        for each in self.methods:
            what = "steering" if each.kind == "add" else "ablation"
            where = f":{each.method}@{each.attribute}"
            rows += [
                each.gain.figure(f"{what}_gain{where}"),
                each.gain_over_random.figure(f"{what}_gain_over_random{where}"),
                each.drift.figure(f"{what}_drift{where}"),
            ]
        for name, found in (
            ("attribute_accuracy", self.accuracy),
            ("prompt_adherence", self.adherence),
            ("latent_auroc", self.selectivity),
        ):
            rows += [figure.figure(f"{name}@{at}") for at, figure in found.items()]
        return rows


def selectivity(score_ns: NDArray[np.float32], positive_nc: NDArray[np.bool_]) -> FloatArray:
    """AUROC of each latent's score for each concept, [s, c]; ties count half, NaN without pairs."""
    from scipy.stats import rankdata

    positive = positive_nc.astype(np.float64)
    count_c = positive.sum(axis=0)
    rank_ns = rankdata(score_ns, axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        won_sc = rank_ns.T @ positive - count_c * (count_c + 1) / 2
        return np.asarray(won_sc / (count_c * (len(positive) - count_c)))


def most_selective(
    score_ns: NDArray[np.float32], positive_nc: NDArray[np.bool_], norm_s: NDArray[np.float32]
) -> tuple[NDArray[np.int64], FloatArray]:
    """The latent of the largest AUROC for each concept [c], and that AUROC [c].

    Of equal ones the latent that writes most on positives beyond negatives, its decoder row being
    as long as `norm_s` says. Every concept needs positives and negatives.
    """
    auroc_sc = selectivity(score_ns, positive_nc)
    share_nc = positive_nc / positive_nc.sum(axis=0) - ~positive_nc / (~positive_nc).sum(axis=0)
    written_sc = (score_ns * norm_s).T @ share_nc
    best_sc = auroc_sc >= auroc_sc.max(axis=0) - _SAME
    latent_c = np.where(best_sc, written_sc, -np.inf).argmax(axis=0)
    return latent_c, auroc_sc[latent_c, np.arange(len(latent_c))]


def readable_attributes(adherence: Mapping[str, Estimate]) -> list[str]:
    """Attributes whose adherence lies above chance with its whole interval."""
    return [
        name
        for name, found in adherence.items()
        if found.ci_low is not None and found.chance is not None and found.ci_low > found.chance
    ]


def shares(
    shown: Mapping[str, tuple[NDArray[np.bool_], float]], seed: int, resamples: int, level: float
) -> dict[str, Estimate]:
    """Shares with their intervals, out of what is right and chance, by attribute."""
    return {
        name: estimate(bootstrap_mean(right_n, seed, resamples, level), len(right_n), chance)
        for name, (right_n, chance) in shown.items()
    }


def choose_coefficient(
    found: Sequence[Steered], readable: Collection[str], max_drift: float
) -> float:
    """The coefficient of the largest gain among those that drift no more than `max_drift`; the
    smallest where all do. Of equal ones the smaller."""
    kept = [each for each in found if each.drift_b(readable).mean() <= max_drift]
    if not kept:
        return min(each.coefficient for each in found)
    return min(kept, key=lambda each: (-each.gain_b.mean(), each.coefficient)).coefficient


def steering(
    found: Sequence[Steered],
    accuracy: Mapping[str, tuple[NDArray[np.bool_], float]],
    adherence: Mapping[str, tuple[NDArray[np.bool_], float]],
    auroc: Mapping[str, Sequence[float]],
    *,
    seed: int,
    resamples: int,
    level: float,
) -> SteeringResult:
    """Summarise edits by kind, attribute and method; intervals over prompts.

    Args:
        found: every edit of every target, one coefficient each.
        accuracy: by attribute, whether the probe is right on each held-out image, and chance.
        adherence: by attribute, whether each unedited image shows its prompt's value, and chance.
        auroc: by attribute, that of the latent chosen for each target.
        seed: of the bootstrap.
        resamples: of the bootstrap.
        level: coverage of the intervals.
    """
    shown = shares(adherence, seed, resamples, level)
    readable = readable_attributes(shown)
    figures = []
    for kind, attribute in sorted({(each.kind, each.attribute) for each in found}):
        same = [each for each in found if (each.kind, each.attribute) == (kind, attribute)]
        random_b3 = _by_prompt([each for each in same if each.method == RANDOM], readable)
        for method in METHODS:
            own = [each for each in same if each.method == method]
            if not own:
                continue
            own_b3 = _by_prompt(own, readable)
            n = int(own_b3[:, 2].sum())
            paired = np.concatenate([own_b3, random_b3], axis=1)
            gain, drift = (
                bootstrap_ratio(own_b3[:, i], own_b3[:, 2], seed, resamples, level) for i in (0, 1)
            )
            if not set(readable) - {attribute}:
                drift = _UNDEFINED
            over = bootstrap(
                paired, lambda m: m[:, 0] / m[:, 2] - m[:, 3] / m[:, 5], seed, resamples, level
            )
            levels = random_b3[:, :2].sum(axis=0) / random_b3[:, 2].sum()
            figures.append(
                MethodFigures(
                    kind=kind,
                    attribute=attribute,
                    method=method,
                    gain=estimate(gain, n, float(levels[0])),
                    gain_over_random=estimate(over, n, 0.0),
                    drift=estimate(drift, n, float(levels[1])),
                )
            )

    return SteeringResult(
        methods=figures,
        accuracy=shares(accuracy, seed, resamples, level),
        adherence=shown,
        readable=readable,
        selectivity={
            name: estimate(bootstrap_mean(each, seed, resamples, level), len(each), 0.5)
            for name, each in auroc.items()
        },
    )


def _by_prompt(found: Sequence[Steered], readable: Collection[str]) -> FloatArray:
    """Sums of gain and drift, and the number of images, of each prompt [b, 3].

    Every method is measured on the same prompts, so rows of two methods are of one prompt.
    """
    prompt_n = np.concatenate([each.prompt_b for each in found])
    _, place_n = np.unique(prompt_n, return_inverse=True)
    columns = [
        np.bincount(place_n, np.concatenate([each.gain_b for each in found])),
        np.bincount(place_n, np.concatenate([each.drift_b(readable) for each in found])),
        np.bincount(place_n).astype(np.float64),
    ]
    return np.stack(columns, axis=1)
