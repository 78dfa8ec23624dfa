"""Share of classes that have a latent of their own.

A class has one if some latent's label is the class word and the word holds at least `min_share` of
that latent's strong activation; singular and plural are one word. Where many classes have none, a
matching rate measures the dictionary, not the projector. Labels are single words, so a class of
several words ("traffic light") is never named.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from pydantic import Field

from vista.judges.words import inflections
from vista.metrics.bootstrap import DEFAULT_LEVEL, DEFAULT_RESAMPLES, bootstrap_mean
from vista.metrics.figure import Figure
from vista.metrics.rates import rate_interval
from vista.metrics.result import Estimate, MetricResult, ResultPart, estimate


class Label(NamedTuple):
    """The label of a latent.

    Attributes:
        word: The label; None of a latent without one.
        share: Its share in 0..1 of the latent's strong activation.
        auroc: AUROC of the latent as classifier of the word on held-out text; NaN where it was not
            scored.
    """

    word: str | None
    share: float
    auroc: float = math.nan


class LayerNaming(ResultPart):
    """How many classes one layer's dictionary names."""

    layer: int = Field(description="Block after which the SAE reads, counted from 0.")
    share: Estimate = Field(description="Share of classes with a latent of their own.")
    latents: dict[str, int] = Field(description="Named class -> its latent with the largest share.")
    unnamed: list[str] = Field(description="Classes without a latent of their own, sorted.")
    label_auroc: Estimate | None = Field(
        None,
        description="Mean AUROC, on held-out text, of the named classes' latents as classifiers of "
        "their labels, over those that were scored; null: labels were not scored.",
    )


class NamingResult(MetricResult):
    """Share of classes with a latent of their own, for each layer."""

    min_share: float = Field(
        description="Share of strong activation that the class word must hold."
    )
    layers: list[LayerNaming] = Field(description="One entry a layer, ascending.")

    def figures(self) -> list[Figure]:
        """Return the share of named classes by layer (n: classes), and where labels were scored
        their mean AUROC (n: scored labels of named classes)."""
        shares = [entry.share.figure("named_classes", entry.layer) for entry in self.layers]
        scores = [
            entry.label_auroc.figure("label_auroc", entry.layer, of="named_classes")
            for entry in self.layers
            if entry.label_auroc is not None
        ]
        return shares + scores


def naming(
    classes: Sequence[str],
    labels: Mapping[int, Sequence[Label]],
    min_share: float,
    seed: int = 0,
    n_boot: int = DEFAULT_RESAMPLES,
    level: float = DEFAULT_LEVEL,
) -> NamingResult:
    """Measure which of `classes` each layer names.

    Args:
        classes: Class words; duplicates and case do not count.
        labels: layer -> the label of each latent, by latent number.
        min_share: Share in 0..1 that the class word must hold.
        seed: Seed of the bootstrap over labels.
        n_boot: Number of resamples.
        level: Coverage of the intervals over classes.
    """
    words = sorted({word.lower() for word in classes})
    # A label may be the plural of the class word. A class of several words has no such form.
    class_of = {
        phrase[0]: word
        for word in reversed(words)
        for phrase in sorted(inflections(word), reverse=True)
        if len(phrase) == 1
    } | {word: word for word in words}
    layers = []
    for layer in sorted(labels):
        best: dict[str, tuple[float, int]] = {}
        for latent, (label, share, _) in enumerate(labels[layer]):
            if label is None or share < min_share:
                continue
            word = class_of.get(label.lower(), "")
            if word not in best or share > best[word][0]:  # of equal shares the first latent
                best[word] = (float(share), latent)
        named = [float(word in best) for word in words]
        scores = [labels[layer][best[word][1]].auroc for word in words if word in best]
        layers.append(
            LayerNaming(
                layer=layer,
                share=estimate(rate_interval(named, [1.0] * len(words), level), n=len(words)),
                latents={word: best[word][1] for word in words if word in best},
                unnamed=[word for word in words if word not in best],
                label_auroc=_mean_auroc(scores, seed, n_boot, level)
                if any(not math.isnan(label.auroc) for label in labels[layer])
                else None,
            )
        )
    return NamingResult(min_share=min_share, layers=layers)


def _mean_auroc(scores: Sequence[float], seed: int, n_boot: int, level: float) -> Estimate:
    """The mean over latents that were scored; chance is .5, what any two scores alike give."""
    scored = [score for score in scores if not math.isnan(score)]
    return estimate(bootstrap_mean(scored, seed, n_boot, level), n=len(scored), chance=0.5)
