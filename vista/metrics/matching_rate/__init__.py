"""Matching rate: do the labels of an image's strongest latents name what it shows?"""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from vista.config.base import later
from vista.config.judges import JudgeChoice, judge_settings, looking_judges
from vista.config.metric import Metric, MetricSettings
from vista.config.metrics import (
    WITHOUT,
    BootstrapSettings,
    LatentMaskSettings,
    MaskBounds,
    Without,
    refuse_twice,
)


class MatchingSettings(MetricSettings):
    """Share of images in which the label of one of the strongest latents names what the image shows
    (VISTA, arXiv 2605.24946), with its level on shuffled images and the gain over that."""

    mask: LatentMaskSettings = Field(
        default_factory=LatentMaskSettings, description="Latents that may be chosen."
    )
    without_masks: tuple[Without, ...] = later(
        WITHOUT,
        description="Masks that the same figures are reported without, too; unmasked: without "
        "both. With `evidence: image` each is two more questions an image.",
    )
    mask_curve: tuple[float, ...] = later(
        (0.02, 0.05, 0.1, 0.3, 1.0),
        description="Values of `mask.max_image_share` that the headline figure is reported under, "
        "too; 1: no frequency mask. Not read with `evidence: image`, where each would be two more "
        "questions an image.",
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

    @field_validator("mask_curve")
    @classmethod
    def _shares(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if any(not 0 < share <= 1 for share in value):
            raise ValueError(f"every bound must be above 0 and at most 1; got {list(value)}")
        refuse_twice(tuple(f"{share:g}" for share in value))
        return value

    @field_validator("without_masks")
    @classmethod
    def _distinct(cls, value: tuple[Without, ...]) -> tuple[Without, ...]:
        refuse_twice(value)
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

    @property
    def without_bounds(self) -> dict[Without, MaskBounds]:
        """The bounds of the masks for each entry of `without_masks`."""
        return {name: self.mask.bounds.without(name) for name in self.without_masks}

    @property
    def curve_bounds(self) -> dict[float, MaskBounds]:
        """The bounds of the masks for each point of the curve that is measured."""
        shares = () if self.evidence == "image" else self.mask_curve
        return {share: self.mask.bounds._replace(image_share=share) for share in shares}

    @property
    def reads_images(self) -> bool:
        return self.evidence == "image"


METRIC = Metric(
    name="matching_rate",
    makes="do the top latents' labels name what the image shows",
    settings=MatchingSettings,
    per="point",
    reads=("latents", "mask_latents", "labels", "records", "world", "fetched", "judge", "files"),
    position=50,
    groups=True,
    message="measuring the matching rate of",
)
