"""Figures of gated cross-attention: those of attention on objects, and its captions."""

from __future__ import annotations

from pydantic import Field

from vista.metrics.figure import Figure
from vista.metrics.grounding_attention.measure import GroundingAttentionResult
from vista.metrics.result import Estimate, MetricResult, ResultPart


class Trained(ResultPart):
    """One training."""

    weight: float = Field(description="Weight of the attention loss.")
    gates: dict[int, float] = Field(description="tanh of the gate, by block.")
    attention: GroundingAttentionResult = Field(
        description="Attention of the cross-attention to patches, of which all goes to the image; "
        "its layers are the blocks of `gates` in their order."
    )

    def figures(self) -> list[Figure]:
        """Return the figures over all blocks and heads, at the weight as text (`of`)."""
        of = f"{self.weight:g}"
        rows = [
            self.attention.cross_entropy.figure(
                "cross_attention_cross_entropy", None, "text", of=of
            )
        ]
        for part in self.attention.grounding:
            if part.position != "word" or part.layer is not None:
                continue
            for name, value, items in (
                ("on_object", part.on_object, None),
                ("on_object", part.shuffled_on_object, "shuffled_masks"),
                ("auroc", part.auroc, None),
                ("auroc", part.shuffled_auroc, "shuffled_masks"),
                ("pointing", part.pointing, None),
            ):
                figure = value.figure(f"cross_attention_{name}", None, "text", of=of, set=items)
                rows.append(figure)
        return rows


class CrossAttentionResult(MetricResult):
    """All trainings of one encoder, language model and seed."""

    without_image: Estimate = Field(
        description="Nats a token of the same captions by the plain language model, which is the "
        "model with gates of 0; mean over captions."
    )
    trained: list[Trained] = Field(description="By weight of the attention loss.")

    def figures(self) -> list[Figure]:
        """Return the figures of the plain model, then those of each training."""
        plain = self.without_image.figure(
            "cross_attention_cross_entropy", None, "text", of="without_image"
        )
        return [plain, *(row for part in self.trained for row in part.figures())]
