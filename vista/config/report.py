"""Settings of the report: aims to compare with, and what the figures show."""

from __future__ import annotations

from pydantic import Field

from vista.config.base import Settings


class Aims(Settings):
    """What a run is expected to reach, shown beside the figures; null: no aim."""

    named_classes: float | None = Field(
        0.9, ge=0, le=1, description="Share of classes with a latent of their own, per layer."
    )
    caption_names_object: float | None = Field(
        0.8, ge=0, le=1, description="Share of one-object images whose caption names the object."
    )
    patch_accuracy: float | None = Field(
        0.8, ge=0, le=1, description="Linear-probe patch accuracy of an encoder."
    )
    error_ratio: float | None = Field(
        5.0, gt=0, description="SAE error on image tokens without the term / with it, at least."
    )
    cross_entropy_increase: float | None = Field(
        0.05, description="Relative increase of the caption cross-entropy with the term, at most."
    )
    matching_ratio: float | None = Field(
        3.0,
        gt=0,
        description="Matching gain over the shuffled level, with the term / without, hoped for.",
    )
    removal_gain: float | None = Field(
        0.35, description="Relative gain of the removal MS over the best vision-only rival."
    )
    replacement_gain: float | None = Field(
        0.47, description="Relative gain of the replacement MS over the best vision-only rival."
    )


class ReportSettings(Settings):
    """The long table, its readable form and the figures."""

    aims: Aims = Field(default_factory=Aims, description="What figures are compared with.")
    top_k: int = Field(3, ge=1, description="The k of the matching rate that is shown.")
    heatmap_layer: int | None = Field(
        None, ge=0, description="Layer of the heat maps; null: the one that names most classes."
    )
    heatmap_examples: int = Field(
        6, ge=0, description="Example images a heat-map figure; 0: no heat maps."
    )
    dpi: int = Field(130, ge=30, le=600, description="Resolution of the PNG figures.")
