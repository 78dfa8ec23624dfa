"""Monosemanticity: do the images of a latent resemble each other to another encoder?"""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from vista.config.data import Split
from vista.config.metric import Metric, MetricSettings
from vista.config.metrics import BootstrapSettings


class MonosemanticitySettings(MetricSettings):
    """Mean similarity of the images on which a latent fires, in the space of another encoder: the
    monosemanticity score of Pach et al. (arXiv 2504.02821), averaged over latents."""

    placing: ClassVar[frozenset[str]] = frozenset({"judged_by"})

    judged_by: str | None = Field(
        None,
        description="the encoder whose space similarity is measured in, but for latents of the "
        "same model; null: the first that reads another model",
    )
    split: Split = Field("test", description="images that are compared")
    seed: int = Field(0, ge=0, description="seed of the random dictionary")
    sheet_latents: int = Field(
        12,
        ge=0,
        description="latents on the sheet of top images, highest scores first; 0: no sheet",
    )
    sheet_images: int = Field(8, ge=2, description="top images a latent on it")
    bootstrap: BootstrapSettings = Field(
        default_factory=BootstrapSettings, description="intervals over latents"
    )


METRIC = Metric(
    name="monosemanticity",
    makes="do a latent's images resemble each other to another encoder",
    settings=MonosemanticitySettings,
    per="vision_sae",
    reads=("features", "records", "sae", "check", "labels", "other", "world", "fetched"),
    section="probing",
    position=110,
    gpu=True,
    message="judging how alike the images of a latent are in",
)
