"""Settings of the report: aims to compare with, and what the figures show."""

from __future__ import annotations

from pydantic import Field

from vista.config.base import Settings, later


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
        5.0,
        gt=0,
        description="FVU of image tokens without the term / with it, at least. FVU is the SAE "
        "error relative to the tokens' variance; the raw error also falls where tokens collapse.",
    )
    l0_ratio: float | None = later(
        3.0,
        ge=1,
        description="L0 of image tokens with the term is at most this many times that of text, "
        "and at least that of text divided by it.",
    )
    cross_entropy_increase: float | None = Field(
        0.05, description="Relative increase of the caption cross-entropy with the term, at most."
    )
    content_ratio: float | None = later(
        0.8,
        ge=0,
        description="What the own image's tokens tell captions (their cross-entropy behind the "
        "tokens of another image - behind its own) with the term / without, at least: an error "
        "that falls because tokens say nothing reaches no aim.",
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


class CollapseSettings(Settings):
    """From where on the report calls a projector collapsed, on any layer; null: no such bound."""

    max_fvu: float | None = Field(
        1.0,
        gt=0,
        description="FVU of image tokens of a projector with the SAE term, from which on it "
        "counts as collapsed; 1 is that of answering the mean token.",
    )
    min_fired_share: float | None = Field(
        0.02,
        ge=0,
        le=1,
        description="Share of the dictionary that fires on any image token, at least.",
    )
    min_image_variance: float | None = Field(
        0.001,
        ge=0,
        description="Variance of image tokens between images / variance of the text control over "
        "tokens, at least.",
    )


class ReportSettings(Settings):
    """The long table, its readable form and the figures."""

    aims: Aims = Field(default_factory=Aims, description="What figures are compared with.")
    collapse: CollapseSettings = later(
        CollapseSettings(), description="When a projector counts as collapsed."
    )
    least_n: int = later(
        10,
        ge=1,
        description="Figures that are a mean over fewer things are marked with their n, drawn "
        "grey, and left out of orders of encoders.",
    )
    top_k: int = Field(3, ge=1, description="The k of the matching rate that is shown.")
    heatmap_layer: int | None = Field(
        None, ge=0, description="Layer of the heat maps; null: the one that names most classes."
    )
    heatmap_examples: int = Field(
        6, ge=0, description="Example images a heat-map figure; 0: no heat maps."
    )
    dpi: int = Field(130, ge=30, le=600, description="Resolution of the PNG figures.")
