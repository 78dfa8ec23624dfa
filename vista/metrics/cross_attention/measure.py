"""Figures of gated cross-attention: those of attention on objects, and its captions.

Suffix: b caption, one an image.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from pydantic import Field

from vista.metrics.bootstrap import bootstrap_mean
from vista.metrics.figure import Figure
from vista.metrics.grounding_attention.measure import GroundingAttentionResult
from vista.metrics.ranking import FloatArray
from vista.metrics.result import Estimate, MetricResult, ResultPart, estimate

# Stands for the plain language model where figures of a training have its weight.
WITHOUT_IMAGE = "without_image"


class Trained(ResultPart):
    """One training."""

    weight: float = Field(description="Weight of the attention loss.")
    gates: dict[int, float] = Field(description="tanh of the gate, by block.")
    attention: GroundingAttentionResult = Field(
        description="Attention of the cross-attention to patches; its layers are the blocks of "
        "`gates` in their order. All of it goes to the image, so the scores `attention` and "
        "`attention_before` of the right image are of rounding alone."
    )
    cost: Estimate | None = Field(
        description="Nats a token of the captions less those of the first training, paired over "
        "captions; null: this is the first."
    )

    def figures(self) -> Iterator[Figure]:
        """Yield the figures over all blocks and heads, with the weight as text (`method`); `of` is
        the position of the attention, as of `Grounding`."""
        method = f"{self.weight:g}"
        yield from _caption_figures(self.attention.cross_entropy, self.cost, method)
        for part in self.attention.grounding:
            if part.layer is not None:
                continue
            for name, value, items in (
                ("on_object", part.on_object, None),
                ("on_object", part.shuffled_on_object, "shuffled_masks"),
                ("auroc", part.auroc, None),
                ("auroc", part.shuffled_auroc, "shuffled_masks"),
                ("pointing", part.pointing, None),
            ):
                yield value.figure(
                    f"cross_attention_{name}",
                    None,
                    "text",
                    of=part.position,
                    set=items,
                    method=method,
                )


class CrossAttentionResult(MetricResult):
    """All trainings of one encoder, language model and seed."""

    without_image: Estimate = Field(
        description="Nats a token of the same captions by the plain language model, which is the "
        "model with gates of 0; mean over captions."
    )
    without_image_cost: Estimate = Field(
        description="The same less those of the first training, paired over captions."
    )
    trained: list[Trained] = Field(description="In the order of the settings' `weights`.")

    def figures(self) -> list[Figure]:
        """Return the figures of the plain model, then those of each training."""
        return [
            *_caption_figures(self.without_image, self.without_image_cost, WITHOUT_IMAGE),
            *(figure for part in self.trained for figure in part.figures()),
        ]


def _caption_figures(nats: Estimate, cost: Estimate | None, method: str) -> Iterator[Figure]:
    yield nats.figure("cross_attention_cross_entropy", None, "text", method=method)
    if cost is not None:
        yield cost.figure("cross_attention_cost", None, "text", method=method)


def cross_attention_result(
    trainings: Sequence[tuple[float, Mapping[int, float], GroundingAttentionResult, FloatArray]],
    plain_b: FloatArray,
    *,
    seed: int,
    resamples: int,
    level: float,
) -> CrossAttentionResult:
    """Return the result, with differences to the first training paired over captions.

    The intervals are of these trainings: they do not tell how another seed would differ.

    Args:
        trainings: Weight, gates by block, figures of attention and nats a token of each caption
            [b], of one training or more.
        plain_b: Nats a token of each caption by the plain language model.
        seed: Seed of the bootstrap.
        resamples: Number of resamples.
        level: Coverage of the intervals.
    """

    def mean(value_b: FloatArray) -> Estimate:
        return estimate(bootstrap_mean(value_b, seed, resamples, level), len(value_b))

    first_b = trainings[0][-1]
    return CrossAttentionResult(
        without_image=mean(plain_b),
        without_image_cost=mean(plain_b - first_b),
        trained=[
            Trained(
                weight=weight,
                gates=dict(gates),
                attention=attention,
                cost=mean(nats_b - first_b) if i else None,
            )
            for i, (weight, gates, attention, nats_b) in enumerate(trainings)
        ],
    )
