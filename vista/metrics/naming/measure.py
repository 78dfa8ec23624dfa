"""Share of classes that have a latent of their own.

A class has one if some latent's label is the class word and the word holds at least `min_share` of
that latent's strong activation; singular and plural are one word. Where many classes have none, a
matching rate measures the dictionary, not the projector. Labels are single words, so a class of
several words ("traffic light") is never named.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pydantic import Field

from vista.judges.words import inflections
from vista.metrics.bootstrap import DEFAULT_LEVEL
from vista.metrics.figure import Figure
from vista.metrics.rates import rate_interval
from vista.metrics.result import Estimate, MetricResult, ResultPart, estimate


class LayerNaming(ResultPart):
    """How many classes one layer's dictionary names."""

    layer: int = Field(description="Block after which the SAE reads, counted from 0.")
    share: Estimate = Field(description="Share of classes with a latent of their own.")
    latents: dict[str, int] = Field(description="Named class -> its latent with the largest share.")
    unnamed: list[str] = Field(description="Classes without a latent of their own, sorted.")


class NamingResult(MetricResult):
    """Share of classes with a latent of their own, for each layer."""

    min_share: float = Field(
        description="Share of strong activation that the class word must hold."
    )
    layers: list[LayerNaming] = Field(description="One entry a layer, ascending.")

    def figures(self) -> list[Figure]:
        """Return one figure a layer; n is the number of classes."""
        return [entry.share.figure("named_classes", entry.layer) for entry in self.layers]


def naming(
    classes: Sequence[str],
    labels: Mapping[int, Sequence[tuple[str | None, float]]],
    min_share: float,
    level: float = DEFAULT_LEVEL,
) -> NamingResult:
    """Measure which of `classes` each layer names.

    Args:
        classes: Class words; duplicates and case do not count.
        labels: layer -> (label, its share of strong activation) of each latent, by latent number.
        min_share: Share in 0..1 that the class word must hold.
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
        for latent, (label, share) in enumerate(labels[layer]):
            if label is None or share < min_share:
                continue
            word = class_of.get(label.lower(), "")
            if word not in best or share > best[word][0]:  # of equal shares the first latent
                best[word] = (float(share), latent)
        named = [float(word in best) for word in words]
        layers.append(
            LayerNaming(
                layer=layer,
                share=estimate(rate_interval(named, [1.0] * len(words), level), n=len(words)),
                latents={word: best[word][1] for word in words if word in best},
                unnamed=[word for word in words if word not in best],
            )
        )
    return NamingResult(min_share=min_share, layers=layers)
