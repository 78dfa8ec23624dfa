"""Settings of the metrics. Defaults are the published values where there are any."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from vista.config.base import Settings
from vista.config.data import Split
from vista.config.judges import JudgeChoice, judge_settings, looking_judges


class BootstrapSettings(Settings):
    """Intervals of every figure: percentile bootstrap over images."""

    resamples: int = Field(1000, ge=1, description="Times that the images are drawn anew.")
    level: float = Field(0.95, gt=0, lt=1, description="Coverage of the interval.")
    seed: int = Field(0, ge=0, description="Seed of the draws.")


class LatentMaskSettings(Settings):
    """Which latents may speak for an image (VISTA paper, matching rate)."""

    max_image_share: float = Field(
        0.05, gt=0, le=1, description="Latents active in a larger share of the images are masked."
    )
    max_label_density: float = Field(
        0.005, gt=0, le=1, description="Latents active on a larger share of text tokens are masked."
    )


class ReconstructionSettings(Settings):
    """SAE error and sparsity per layer and token kind."""

    bootstrap: BootstrapSettings = Field(
        default_factory=BootstrapSettings, description="Intervals over images."
    )


class MatchingSettings(Settings):
    """Whether the strongest latents of an image name what it shows."""

    mask: LatentMaskSettings = Field(
        default_factory=LatentMaskSettings, description="Latents that may be chosen."
    )
    top_k: int = Field(3, ge=1, description="Distinct latents an image is judged by.")
    other_k: tuple[int, ...] = Field(
        (1, 5, 10), description="Further numbers of latents to report beside it."
    )
    judge: JudgeChoice = Field("lexical", description="Judge of labels: see vista.judges.")
    evidence: Literal["objects", "image"] = Field(
        "objects",
        description="What labels are judged against. objects: the names of the image's annotated "
        "objects, by any judge. image: the image itself, as published, by a judge that can be "
        "shown one (vlm or api); images without annotated objects count too.",
    )
    shuffle_seed: int = Field(
        0,
        ge=0,
        description="Evidence image: seed of the other image that each image's labels are shown "
        "with for the shuffled level; another seed means new questions.",
    )
    bootstrap: BootstrapSettings = Field(
        default_factory=BootstrapSettings, description="Intervals over images."
    )

    @field_validator("other_k")
    @classmethod
    def _positive(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if any(k < 1 for k in value):
            raise ValueError(f"every k must be 1 or more; got {list(value)}")
        return value

    @model_validator(mode="after")
    def _can_look(self) -> Self:
        judge = judge_settings(self.judge)
        if self.evidence == "image" and not judge.looks:
            others = " or ".join(f"{{kind: {name}, ...}}" for name in looking_judges())
            raise ValueError(
                "`evidence: image` needs a judge that can be shown images; "
                f"{judge.kind!r} cannot: set `judge` to {others}, or `evidence: objects`"
            )
        return self

    @property
    def ks(self) -> tuple[int, ...]:
        """All numbers of latents to report, ascending."""
        return tuple(sorted({self.top_k, *self.other_k}))


class LocalizationSettings(Settings):
    """Whether named latents fire where their object is."""

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
        description="Least patches that boxes must touch, of 256; scaled to the grid.",
    )
    max_patches: int = Field(
        200,
        ge=1,
        le=256,
        description="Most patches that boxes may touch, of 256; scaled to the grid.",
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


class CaptionSettings(Settings):
    """What the language model says about an image it sees through the projector."""

    split: Split = Field("test", description="Images that are captioned.")
    judge: JudgeChoice = Field("lexical", description="Judge of object mentions: see vista.judges.")
    max_new_tokens: int = Field(32, ge=1, description="Longest greedy caption, in tokens.")
    batch_size: int = Field(64, ge=1, description="Images a forward pass.")
    max_length: int = Field(512, ge=1, description="Tokens a sample, visual tokens included.")
    bootstrap: BootstrapSettings = Field(
        default_factory=BootstrapSettings, description="Intervals over images."
    )
