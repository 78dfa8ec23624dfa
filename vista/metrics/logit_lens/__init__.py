"""Logit lens: words that the model's own head reads at visual tokens (arXiv 2403.07720)."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from vista.config.data import Split
from vista.config.judges import JudgeChoice
from vista.config.metric import Metric, MetricSettings
from vista.config.metrics import BootstrapSettings


class LogitLensSettings(MetricSettings):
    """Share of patches, and of images, whose likeliest words under the model's own head name an
    object there: the logit lens on visual tokens (arXiv 2403.07720), the figures ours."""

    split: Split = Field("test", description="images that are read")
    ks: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        (1, 3, 10), min_length=1, description="words a patch, and words an image"
    )
    max_image_share: float = Field(
        0.05,
        gt=0,
        le=1,
        description="words that are the likeliest of a patch in a larger share of the images are "
        "left out of the figures of images; as the mask of metrics.matching_rate. Figures without "
        "this mask are reported, too",
    )
    judge: JudgeChoice = Field("lexical", description="judge of words: see vista.judges")
    mask_cover: float = Field(
        0.35, gt=0, le=1, description="share of a patch that an object must cover"
    )
    batch_size: int = Field(64, ge=1, description="images a forward pass")
    bootstrap: BootstrapSettings = Field(
        default_factory=BootstrapSettings, description="intervals over images"
    )


METRIC = Metric(
    name="logit_lens",
    makes="words that the model's own head reads at visual tokens",
    settings=LogitLensSettings,
    per="point",
    reads=("features", "records", "projector", "llm", "judge", "files"),
    section="probing",
    position=170,
    gpu=True,
    message="reading visual tokens by the head of the language model in",
)
