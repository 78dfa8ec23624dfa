"""Labellers of a vision SAE's latents, compared by their labels on held-out images."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from vista.config.data import Split
from vista.config.metric import Metric, MetricSettings
from vista.config.metrics import BootstrapSettings
from vista.config.steering_labels import SteeringLabelSettings


class VisionLabelsSettings(MetricSettings):
    """AUROC of a latent as classifier of the held-out images that show its label: of labels by top
    images, by what a language model says of a blank image that is steered along the latent
    (Ferrando et al. 2026, arXiv 2603.22593), and by the nearest input embedding."""

    placing: ClassVar[frozenset[str]] = frozenset(
        {"encoders", "vision_saes", "sae_weights", "seeds", "steering"}
    )

    steering: SteeringLabelSettings = Field(
        SteeringLabelSettings(), description="how latents are steered and what is asked"
    )
    split: Split = Field("test", description="images that labels are scored on")
    min_images: int = Field(
        5,
        ge=1,
        description="images of `split` that a latent fires in, and that show its label, at least",
    )
    encoders: tuple[str, ...] | None = Field(
        None, description="names, each with a point of the sweep; null: those of probing.encoders"
    )
    vision_saes: tuple[str, ...] | None = Field(
        None, description="names; null: those of probing.vision_saes"
    )
    sae_weights: tuple[float, ...] | None = Field(
        None, description="weights of the points whose projectors are read; null: all"
    )
    seeds: tuple[int, ...] | None = Field(
        None, description="seeds of the points whose projectors are read; null: all"
    )
    bootstrap: BootstrapSettings = Field(
        default_factory=BootstrapSettings, description="intervals over latents"
    )


METRIC = Metric(
    name="vision_labels",
    makes="who names a vision SAE's latents best: top images, steering, the nearest embedding",
    settings=VisionLabelsSettings,
    per="vision_sae_point",
    reads=("features", "records", "sae", "labels", "steering"),
    section="probing",
    position=115,
    gpu=True,
    message="scoring the labels of",
)
