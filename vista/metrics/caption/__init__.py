"""Captions: cross-entropy of references, and the objects that greedy captions name."""

from __future__ import annotations

from pydantic import Field

from vista.config.data import Split
from vista.config.judges import JudgeChoice
from vista.config.metric import Metric, MetricSettings
from vista.config.metrics import BootstrapSettings


class CaptionSettings(MetricSettings):
    """Cross-entropy of reference answers, and the objects that the language model's greedy captions
    name: recall, and hallucinated objects as CHAIR counts them (Rohrbach et al. 2018)."""

    split: Split = Field("test", description="Images that are captioned.")
    judge: JudgeChoice = Field("lexical", description="Judge of object mentions: see vista.judges.")
    max_new_tokens: int = Field(32, ge=1, description="Longest greedy caption, in tokens.")
    batch_size: int = Field(64, ge=1, description="Images a forward pass.")
    max_length: int = Field(512, ge=1, description="Tokens a sample, visual tokens included.")
    bootstrap: BootstrapSettings = Field(
        default_factory=BootstrapSettings, description="Intervals over images."
    )


METRIC = Metric(
    name="caption",
    makes="held-out cross-entropy, object recall and hallucinated objects",
    settings=CaptionSettings,
    per="point",
    reads=("features", "records", "projector", "llm", "judge", "files"),
    position=70,
    gpu=True,
    groups=True,
    message="captioning with",
)
