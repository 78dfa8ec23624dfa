"""Gain and drift of edits that steer a text-to-image pipeline: how often an edit of the prompt's
stream brings the target value about, and how much it changes other attributes.

Images are classified by probes; an edited image is compared with the unedited one of the same
prompt and noise. Defined here: of arXiv 2508.11277 only the abstract is public.

Legend: b prompt, n prompt or image, s latent, c concept.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from vista.metrics.bootstrap import bootstrap, bootstrap_mean, bootstrap_ratio
from vista.metrics.figure import Figure
from vista.metrics.rates import rate_interval
from vista.metrics.result import Estimate, MetricResult, ResultPart, estimate
from vista.metrics.selectivity import selectivity

Kind = Literal["add", "ablate"]
Values = Mapping[str, NDArray[np.str_]]
FloatArray = NDArray[np.float64]


class FigureNames(NamedTuple):
    """Names of the figures of one kind of edit."""

    gain: str
    gain_over_random: str
    drift: str


FIGURES: Mapping[Kind, FigureNames] = {
    "add": FigureNames("steering_gain", "steering_gain_over_random", "steering_drift"),
    "ablate": FigureNames("ablation_gain", "ablation_gain_over_random", "ablation_drift"),
}
# The latent, and the edits that it is compared with. A random direction is the chance level.
LATENT, RANDOM, RANDOM_LATENT, PROMPT = "latent", "random_direction", "random_latent", "prompt"
# AUROCs that differ by less are equal.
_SAME = 1e-9
_UNDEFINED = (float("nan"),) * 3
METHODS = (LATENT, RANDOM, RANDOM_LATENT, PROMPT)


@dataclass(frozen=True)
class Steered:
    """Values that probes predict for the images of some prompts before and after one edit.

    Attributes:
        kind: Whether a value is added to prompts without it, or ablated from prompts with it.
        attribute: The attribute of the value.
        target: The value.
        method: One of METHODS.
        coefficient: Length of the edit; 0 where it has none.
        prompt_b: Number of each prompt, by which targets are paired.
        before: By attribute, the predicted values of unedited images [b].
        after: Those of edited images [b].
    """

    kind: Kind
    attribute: str
    target: str
    method: str
    coefficient: float
    prompt_b: NDArray[np.int64]
    before: Values
    after: Values

    @property
    def gain_b(self) -> FloatArray:
        """1 where the target appeared (ablated: disappeared), -1 for the contrary, else 0."""
        before_b, after_b = (
            (values[self.attribute] == self.target).astype(float)
            for values in (self.before, self.after)
        )
        return np.asarray(after_b - before_b if self.kind == "add" else before_b - after_b)

    def drift_b(self, readable: Collection[str]) -> FloatArray:
        """Return the share of the other readable attributes whose value changed; 0 where there is
        none."""
        others = [name for name in sorted(readable) if name != self.attribute]
        changed = [self.before[name] != self.after[name] for name in others]
        return np.mean(changed, axis=0) if changed else np.zeros(len(self.prompt_b))


class MethodFigures(ResultPart):
    """One method on one attribute, at the coefficients that it chose."""

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
        description="Share of the other readable attributes whose predicted value changes; chance: "
        "a random direction's. Undefined where no other is readable."
    )


class SteeringResult(MetricResult):
    """Gains and drifts of all methods, and how well probes, pipeline and latents work."""

    methods: list[MethodFigures] = Field(description="By kind, attribute and method.")
    accuracy: dict[str, Estimate] = Field(
        description="Accuracy of the probes on held-out real images, by attribute; chance: always "
        "the most frequent value."
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
        """Return gains and drifts `of` each method, then accuracies; `set` is the attribute."""
        rows = []
        for edit in self.methods:
            names = FIGURES[edit.kind]
            rows += [
                value.figure(name, of=edit.method, set=edit.attribute)
                for name, value in (
                    (names.gain, edit.gain),
                    (names.gain_over_random, edit.gain_over_random),
                    (names.drift, edit.drift),
                )
            ]
        for metric, by_attribute in (
            ("attribute_accuracy", self.accuracy),
            ("prompt_adherence", self.adherence),
            ("latent_auroc", self.selectivity),
        ):
            rows += [value.figure(metric, set=name) for name, value in by_attribute.items()]
        return rows


def most_selective(
    score_ns: NDArray[np.float32], positive_nc: NDArray[np.bool_], norm_s: NDArray[np.float32]
) -> tuple[NDArray[np.int64], FloatArray]:
    """Return the latent of the largest AUROC for each concept [c], and that AUROC [c].

    Of equal ones it is the latent that writes most on positives beyond negatives.

    Args:
        score_ns: Activation of each latent on each prompt.
        positive_nc: Whether a prompt has each concept; every concept needs positives and negatives.
        norm_s: Norm of each latent's decoder row.
    """
    auroc_sc = selectivity(score_ns, positive_nc)
    share_nc = positive_nc / positive_nc.sum(axis=0) - ~positive_nc / (~positive_nc).sum(axis=0)
    written_sc = (score_ns * norm_s).T @ share_nc
    best_sc = auroc_sc >= auroc_sc.max(axis=0) - _SAME
    latent_c = np.where(best_sc, written_sc, -np.inf).argmax(axis=0)
    return latent_c, auroc_sc[latent_c, np.arange(len(latent_c))]


def readable_attributes(adherence: Mapping[str, Estimate]) -> list[str]:
    """Return the attributes whose adherence lies above chance with its whole interval."""
    return [
        name
        for name, share in adherence.items()
        if share.ci_low is not None and share.chance is not None and share.ci_low > share.chance
    ]


def shares(
    shown: Mapping[str, tuple[NDArray[np.bool_], float]], level: float
) -> dict[str, Estimate]:
    """Return the share of right items with its interval, by attribute; `shown` has for each item
    whether it is right, and the chance level."""
    return {
        name: estimate(rate_interval(right_n, np.ones(len(right_n)), level), len(right_n), chance)
        for name, (right_n, chance) in shown.items()
    }


def choose_coefficient(
    edits: Sequence[Steered], readable: Collection[str], max_drift: float
) -> float:
    """Return the coefficient of the largest gain among those that drift at most `max_drift`, of
    equal ones the smaller; the smallest coefficient where all drift more."""
    kept = [edit for edit in edits if edit.drift_b(readable).mean() <= max_drift]
    if not kept:
        return min(edit.coefficient for edit in edits)
    return min(kept, key=lambda edit: (-edit.gain_b.mean(), edit.coefficient)).coefficient


def steering(
    edits: Sequence[Steered],
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
        edits: Every edit of every target, one coefficient each.
        accuracy: By attribute, whether the probe is right on each held-out image, and chance.
        adherence: By attribute, whether each unedited image shows its prompt's value, and chance.
        auroc: By attribute, AUROC of the latent chosen for each target.
        seed: Seed of the bootstrap.
        resamples: Bootstrap samples.
        level: Coverage of the intervals.
    """
    shown = shares(adherence, level)
    readable = readable_attributes(shown)
    figures = []
    for kind, attribute in sorted({(edit.kind, edit.attribute) for edit in edits}):
        same = [edit for edit in edits if (edit.kind, edit.attribute) == (kind, attribute)]
        random_b3 = _by_prompt([edit for edit in same if edit.method == RANDOM], readable)
        for method in METHODS:
            of_method = [edit for edit in same if edit.method == method]
            if not of_method:
                continue
            sums_b3 = _by_prompt(of_method, readable)
            n = int(sums_b3[:, 2].sum())
            paired = np.concatenate([sums_b3, random_b3], axis=1)
            gain = bootstrap_ratio(sums_b3[:, 0], sums_b3[:, 2], seed, resamples, level)
            drift = rate_interval(sums_b3[:, 1], sums_b3[:, 2], level)
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
        accuracy=shares(accuracy, level),
        adherence=shown,
        readable=readable,
        selectivity={
            name: estimate(bootstrap_mean(aurocs, seed, resamples, level), len(aurocs), 0.5)
            for name, aurocs in auroc.items()
        },
    )


def _by_prompt(edits: Sequence[Steered], readable: Collection[str]) -> FloatArray:
    """Return the sums of gain and drift, and the number of images, of each prompt [b, 3].

    Every method is measured on the same prompts, so rows of two methods are of one prompt.
    """
    prompt_n = np.concatenate([edit.prompt_b for edit in edits])
    _, place_n = np.unique(prompt_n, return_inverse=True)
    columns = [
        np.bincount(place_n, np.concatenate([edit.gain_b for edit in edits])),
        np.bincount(place_n, np.concatenate([edit.drift_b(readable) for edit in edits])),
        np.bincount(place_n).astype(np.float64),
    ]
    return np.stack(columns, axis=1)
