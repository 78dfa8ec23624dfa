"""Settings of labels that a language model gives to latents of a vision SAE that steer a blank
image."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from vista.config.base import Settings


class SteeringLabelSettings(Settings):
    """How latents are steered, and what the language model is asked: Ferrando et al. 2026 (arXiv
    2603.22593), which steers a block within the encoder with one coefficient for all latents."""

    latents: int | None = Field(
        256,
        ge=1,
        description="latents that are labelled, those that fire on most patches of the images that "
        "`vision_saes.<name>.labels` reads; null: all that fire",
    )
    blank: Literal["white", "mean", "black"] = Field(
        "white",
        description="colour of the blank image; mean: the colour that the encoder's preprocessing "
        "makes zero. Published: white",
    )
    coefficients: tuple[Annotated[float, Field(ge=0)], ...] = Field(
        (4.0, 16.0),
        min_length=1,
        description="how far a latent is steered, in multiples of its largest activation on the "
        "images of its labels; of each latent the coefficient counts whose answer names a class "
        "with the largest gain of log-probability over the blank image",
    )
    prompt: str | None = Field(
        None,
        min_length=1,
        description="what the language model is asked; null: the first question of the data's "
        "training images, which projectors learn to answer",
    )
    max_new_tokens: int = Field(16, ge=1, description="longest answer, in tokens")
    batch_size: int = Field(64, ge=1, description="steered images a forward pass")

    @field_validator("coefficients")
    @classmethod
    def _distinct(cls, coefficients: tuple[float, ...]) -> tuple[float, ...]:
        if len(set(coefficients)) != len(coefficients):
            raise ValueError("coefficients names one value twice")
        return coefficients
