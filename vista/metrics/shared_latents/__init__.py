"""Shared latents: text latents that are selective for a concept in words and in images."""

from __future__ import annotations

from pydantic import Field

from vista.config.metric import Metric, MetricSettings
from vista.config.metrics import BootstrapSettings


class SharedLatentsSettings(MetricSettings):
    """Share of concepts with a text latent that is selective for them in words and in images, by
    AUROC over tokens. Definition ours; of arXiv 2508.11277 only the abstract is public."""

    min_auroc: float = Field(
        0.9, gt=0.5, le=1, description="AUROC from which a latent is selective for a concept"
    )
    min_images: int = Field(
        5, ge=1, description="images whose answer names a concept, and that it is in, at least"
    )
    mask_cover: float = Field(
        0.35, gt=0, le=1, description="share of a patch that an object must cover"
    )
    bootstrap: BootstrapSettings = Field(
        default_factory=BootstrapSettings, description="intervals over concepts"
    )


METRIC = Metric(
    name="shared_latents",
    makes="text latents that are selective in words and in images",
    settings=SharedLatentsSettings,
    per="point",
    reads=("features", "records", "latents", "llm"),
    section="probing",
    position=160,
    message="looking for latents shared by words and images in",
)
