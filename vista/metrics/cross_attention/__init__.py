"""Gated cross-attention: where its text looks, and how well it captions."""

from __future__ import annotations

from pydantic import Field

from vista.config.cross_attention import CrossAttentionSettings
from vista.config.data import Split
from vista.config.metric import ChosenEncoders, Metric
from vista.config.metrics import BootstrapSettings


class CrossAttentionMetricSettings(ChosenEncoders):
    """Attention on objects and caption cross-entropy of gated cross-attention, trained for this
    with several weights of an attention loss (after AGE-VLM, arXiv 2511.17793).

    It reads no projector: it is measured once for an encoder, language model and seed, at the
    smallest SAE weight of the sweep.
    """

    train: CrossAttentionSettings = Field(
        default_factory=CrossAttentionSettings, description="What it is and how it is trained."
    )
    weights: tuple[float, ...] = Field(
        (0.0, 1.0), min_length=1, description="Weights of the attention loss, one training each."
    )
    split: Split = Field("test", description="Images that are measured.")
    fit_split: Split = Field("validation", description="Images that the best head is chosen on.")
    max_images: int = Field(
        500, ge=1, description="Most images of either split, at even distances."
    )
    batch_size: int = Field(32, ge=1, description="Images a forward pass.")
    bootstrap: BootstrapSettings = Field(
        default_factory=BootstrapSettings, description="Intervals over images."
    )


METRIC = Metric(
    name="cross_attention",
    makes="attention on objects of gated cross-attention, trained with and without masks",
    settings=CrossAttentionMetricSettings,
    per="point",
    reads=("features", "records", "llm", "trained", "files"),
    position=76,
    patches=True,
    gpu=True,
    message="measuring cross-attention of",
)
