"""Localization: do latents that are named after a class fire where the class is?"""

from __future__ import annotations

from pydantic import Field

from vista.config.judges import JudgeChoice
from vista.config.metric import Metric, MetricSettings
from vista.config.metrics import BootstrapSettings, LatentMaskSettings


class LocalizationSettings(MetricSettings):
    """Pointing game of matched latents against the boxes of their class (VISTA, arXiv 2605.24946),
    and AUROC, average precision and IoU of activation maps against boxes and masks (ours)."""

    mask: LatentMaskSettings = Field(
        default_factory=LatentMaskSettings,
        description="Latents that may be chosen for the pointing game.",
    )
    top_k: int = Field(3, ge=1, description="Distinct latents an image that may play.")
    judge: JudgeChoice = Field(
        "whole_word", description="Judge that says which labels are the class word."
    )
    min_patches: int = Field(
        5,
        ge=0,
        le=256,
        description="Least patches that a box must touch to play, of 256; scaled to the grid. As "
        "published, the limits are on each box: a class plays with the union of its boxes that "
        "keep them.",
    )
    max_patches: int = Field(
        200,
        ge=1,
        le=256,
        description="Most patches that a box may touch, likewise.",
    )
    mask_cover: float = Field(
        0.5, gt=0, le=1, description="Share of a patch that a mask must cover to count as object."
    )
    permutations: int = Field(
        20, ge=1, description="Permutations of patches for the chance levels of AP and IoU."
    )
    bootstrap: BootstrapSettings = Field(
        default_factory=BootstrapSettings, description="Intervals over images."
    )


METRIC = Metric(
    name="localization",
    makes="do named latents fire on their object",
    settings=LocalizationSettings,
    per="point",
    reads=("latents", "mask_latents", "labels", "records", "features", "judge", "files"),
    position=60,
    groups=True,
    message="measuring localization of",
)
