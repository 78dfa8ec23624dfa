"""Labelled latents as a readout by words: scored as the readouts without an SAE are."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from vista.config.judges import JudgeChoice
from vista.config.metric import Metric, MetricSettings
from vista.config.metrics import BootstrapSettings, LatentMaskSettings


class LabelledLatentsSettings(MetricSettings):
    """Share of patches, and of images, of which the labels of the strongest latents name an object
    there: the readout of metrics.matching_rate by the figures of logit_lens, embedding_lens and
    latent_lens, with its frequency mask and without it."""

    ks: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        (1, 3, 10), min_length=1, description="latents a patch, and latents an image"
    )
    mask: LatentMaskSettings = Field(
        default_factory=LatentMaskSettings,
        description="latents that may be chosen; set it as that of metrics.matching_rate. Without "
        "the frequency mask, latents that are too dense in text are left out all the same",
    )
    judge: JudgeChoice = Field("lexical", description="judge of labels: see vista.judges")
    mask_cover: float = Field(
        0.35, gt=0, le=1, description="share of a patch that an object must cover"
    )
    bootstrap: BootstrapSettings = Field(
        default_factory=BootstrapSettings, description="intervals over images"
    )


METRIC = Metric(
    name="labelled_latents",
    makes="labels of the latents that are strongest at visual tokens",
    settings=LabelledLatentsSettings,
    per="point",
    reads=("latents", "mask_latents", "labels", "features", "records", "judge", "files"),
    section="probing",
    position=169,
    message="reading visual tokens by the labels of latents in",
)
