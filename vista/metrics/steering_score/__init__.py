"""Steering scores: does steering along a latent make the answer the class of its top images?"""

from __future__ import annotations

from typing import ClassVar, Self

from pydantic import Field, model_validator

from vista.config.data import Split
from vista.config.metric import Metric, MetricSettings
from vista.config.metrics import BootstrapSettings
from vista.config.steering_labels import SteeringLabelSettings


class SteeringScoreSettings(MetricSettings):
    """How well what a language model says of a blank image that is steered along a latent of a
    vision SAE fits the latent's top images, against the unsteered answer (Pach et al., arXiv
    2504.02821). There an answer is embedded as text by CLIP; here by the images of the class that
    it names, in the features of another encoder."""

    placing: ClassVar[frozenset[str]] = frozenset(
        {"encoders", "vision_saes", "sae_weights", "seeds", "steering", "judged_by"}
    )

    steering: SteeringLabelSettings = Field(
        SteeringLabelSettings(coefficients=(16.0,)),
        description="how latents are steered, with one coefficient, and what is asked. Published: "
        "What is shown in this image? Use exactly one word!",
    )
    judged_by: str | None = Field(
        None,
        description="the encoder whose features embed answers and top images; null: the first "
        "that reads another model",
    )
    split: Split = Field("test", description="images that classes are embedded by")
    min_images: int = Field(5, ge=1, description="images of `split` that a class needs")
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

    @model_validator(mode="after")
    def _one_coefficient(self) -> Self:
        if len(self.steering.coefficients) != 1:
            raise ValueError(
                "steering.coefficients names several, among which the answer would be chosen; "
                "give one"
            )
        return self


METRIC = Metric(
    name="steering_score",
    makes="does a steered latent make the answer the class of its top images",
    settings=SteeringScoreSettings,
    per="vision_sae_point",
    reads=("features", "records", "labels", "steering", "other"),
    section="probing",
    position=116,
    message="scoring answers to steered blank images of",
)
