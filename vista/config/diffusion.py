"""Settings of the experiments on a text-to-image pipeline: steering through the text encoder, and
the discovery of attributes.

arXiv 2508.11277 is public in its abstract only: the definitions are ours.
"""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from vista.config.base import Settings
from vista.config.judges import NamingJudgeChoice
from vista.config.metrics import BootstrapSettings
from vista.config.pipeline import PipelineSettings
from vista.config.vision_sae import (
    CheckVisionSaeSettings,
    LabelVisionSettings,
    TrainVisionSaeSettings,
    VisionSaeEntry,
)

# Attributes of the drawn world's scenes of one object.
DRAWN_ATTRIBUTES = ("colour", "ground", "row", "column", "noun")
# Where a template takes the caption.
CAPTION = "{}"
# No word is in two templates, so that a latent can be named by it.
TEMPLATES = (
    "{}",
    "a photo of {}",
    "please draw {}",
    "show me {}",
    "we see {}",
    "imagine {}",
    "quick sketch : {}",
    "old print : {}",
    "{} today",
    "{} again",
    "{} with care",
    "{} for fun",
)


class PromptSettings(Settings):
    """The prompts that the text encoder's SAE learns from and that images are generated of."""

    file: str | None = Field(
        None,
        description="text file, a prompt a line, divided by `split_sizes`; null: the captions of "
        "`data`, split by split",
    )
    split_sizes: tuple[int, int, int] = Field(
        (3000, 300, 400), description="most distinct prompts for train, validation and test"
    )
    templates: tuple[str, ...] = Field(
        TEMPLATES,
        min_length=1,
        description="prompt templates, as CLIP has them, one drawn for each caption, for a "
        "stand-in to learn from too: words that say nothing about the image, which discovery has "
        "to reject; not used with `file`",
    )
    max_word_share: float = Field(
        0.5,
        gt=0,
        le=1,
        description="words in a larger share of the prompts than this name no latent",
    )

    @model_validator(mode="after")
    def _some_of_each(self) -> Self:
        if min(self.split_sizes) < 1:
            raise ValueError("each of the three split_sizes must be 1 or more")
        for template in self.templates:
            if template.count(CAPTION) != 1:
                raise ValueError(f"template {template!r} must have {CAPTION} once, for the caption")
        return self


class SteeringSettings(Settings):
    """Gain and drift of steering a text-to-image pipeline along latents of its text encoder: which
    attribute values are steered to, how strongly, and on how many prompts.

    Latents are chosen on all prompts of validation; the coefficient on the first of them. Defined
    here: of arXiv 2508.11277 only the abstract is public.
    """

    attributes: tuple[str, ...] = Field(
        ("colour", "ground"), min_length=1, description="attributes that are steered"
    )
    targets: int = Field(8, ge=1, description="values of each attribute, the most frequent first")
    coefficients: tuple[float, ...] = Field(
        (0.5, 1.0, 2.0, 4.0),
        min_length=1,
        description="lengths of the added direction, in mean norms of the stream at a word",
    )
    development: int = Field(
        6, ge=1, description="prompts of validation that coefficients are chosen on"
    )
    test: int = Field(16, ge=1, description="prompts of test that figures are reported on")
    max_drift: float = Field(
        0.5,
        gt=0,
        le=1,
        description="a coefficient that changes more than this share of the other attributes on "
        "the development prompts is not chosen, if another is left",
    )
    seed: int = Field(0, ge=0, description="seed of noise, random directions and random latents")
    bootstrap: BootstrapSettings = Field(
        default_factory=BootstrapSettings, description="intervals over prompts"
    )


class DiffusionSettings(Settings):
    """Steering a text-to-image pipeline through an SAE on its text encoder."""

    data: str = Field(
        description="an entry of `probing.data`: images and captions with one object each, that "
        "probes (and the stand-in) learn from"
    )
    pipeline: PipelineSettings = Field(PipelineSettings(), description="the pipeline")
    layer: int = Field(0, ge=0, description="block of the text encoder that is read and steered")
    prompts: PromptSettings = Field(PromptSettings(), description="texts")
    sae: VisionSaeEntry = Field(
        VisionSaeEntry(
            train=TrainVisionSaeSettings(expansion=16, k=8),
            check=CheckVisionSaeSettings(),
            labels=LabelVisionSettings(by="image", top_k=64),
        ),
        description="the SAE on the text encoder's residual stream; a patch is a token here",
    )
    judged_by: str | None = Field(
        None, description="the encoder whose features attribute probes read; null: the first"
    )
    attributes: dict[str, tuple[str, ...]] | None = Field(
        None,
        description="the words of each attribute, by name; null: the drawn world's colour, "
        "ground, row, column and noun",
    )
    regularisation: float = Field(
        0.3, gt=0, description="scikit-learn's C of the attribute probes: smaller is stronger"
    )
    iterations: int = Field(200, ge=1, description="iterations of their solver")
    steering: SteeringSettings | None = Field(
        SteeringSettings(), description="what is steered; null: not measured"
    )

    @model_validator(mode="after")
    def _fits(self) -> Self:
        known = tuple(self.attributes or DRAWN_ATTRIBUTES)
        for name in self.steering.attributes if self.steering else ():
            if name not in known:
                raise ValueError(
                    f"steering.attributes names {name!r}; attributes has {', '.join(known)}"
                )
        if self.sae.labels.by != "image":
            raise ValueError("sae.labels.by must be image: a prompt has no places for words")
        return self


class AttributeSettings(Settings):
    """Precision and recall of attributes that latents of the text encoder find: they are proposed
    and named by prompts, and verified on held-out prompts and by steering images. Defined here: of
    arXiv 2508.11277 only the abstract is public.
    """

    proposals: int = Field(40, ge=1, description="latents that are proposed, each of another name")
    min_share: float = Field(
        0.01, ge=0, lt=1, description="a latent that fires on a smaller share of prompts is left"
    )
    max_share: float = Field(
        0.5, gt=0, le=1, description="a latent that fires on a larger share of prompts is left"
    )
    judge: NamingJudgeChoice | None = Field(
        None,
        description="judge that names a latent by its top prompts (api or vlm); null: the labels "
        "of `diffusion.sae`, their most frequent word",
    )
    judged_latents: int = Field(
        200, ge=1, description="latents that `judge` names: those that vary most"
    )
    min_auroc: float = Field(
        0.9,
        gt=0.5,
        le=1,
        description="AUROC on held-out prompts from which a latent separates those with its word",
    )
    coefficient: float = Field(
        1.0, gt=0, description="length of the added direction, in mean norms of the stream"
    )
    prompts: int = Field(12, ge=1, description="test prompts that each proposal is steered on")
    max_random: float = Field(
        0.05,
        gt=0,
        lt=1,
        description="steering verifies a proposal that brings about any one value in more images "
        "than all but this share of the random directions do",
    )
    min_gain: float = Field(
        0.2, gt=0, le=1, description="gain of the named value from which it is brought about"
    )
    seed: int = Field(0, ge=0, description="seed of noise and of the random latents")
    bootstrap: BootstrapSettings = Field(
        default_factory=BootstrapSettings, description="intervals over proposals"
    )
