"""Attributes that latents of a vision SAE find in images."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Self

from pydantic import Field, model_validator

from vista.config.data import Split
from vista.config.judges import NamingJudgeChoice
from vista.config.metric import Metric, MetricSettings
from vista.config.metrics import BootstrapSettings


class ImageAttributeSettings(MetricSettings):
    """Precision and recall of attributes that latents of a vision SAE find in images: latents are
    proposed, named by captions or a judge, and verified on held-out images. Defined here: of arXiv
    2508.11277 only the abstract is public."""

    attributes: dict[str, tuple[str, ...]] | None = Field(
        None,
        description="the words of each true attribute, by name, to judge by; null: the drawn "
        "world's colour, ground, row, column and noun (a class of the data)",
    )
    fit_split: Split = Field("train", description="images that latents are named by")
    rank_split: Split = Field(
        "validation", description="images that proposals are ranked on; may be those of fit_split"
    )
    split: Split = Field("test", description="images that proposals are verified on")
    images: int | None = Field(
        10_000, ge=2, description="most images of each split, drawn at random; null: all"
    )
    proposals: int = Field(80, ge=1, description="latents that are proposed, each of another name")
    min_share: float = Field(
        0.005, ge=0, lt=1, description="a latent that fires on a smaller share of images is left"
    )
    max_share: float = Field(
        0.5, gt=0, le=1, description="a latent that fires on a larger share of images is left"
    )
    top_k: int = Field(16, ge=1, description="images that a latent is named by")
    judge: NamingJudgeChoice | None = Field(
        None,
        description="who names a latent by a sheet of its top images (api or vlm), without "
        "captions; null: the word that their captions have more often than others",
    )
    judged_latents: int = Field(
        200,
        ge=1,
        description="latents of each dictionary that `judge` names: those that vary most",
    )
    min_images: int = Field(
        3,
        ge=1,
        description="images that a latent must fire on, and that must have its word in each "
        "split, at least",
    )
    min_auroc: float = Field(
        0.9,
        gt=0.5,
        le=1,
        description="AUROC on held-out images from which a latent separates those with its word",
    )
    seed: int = Field(
        0, ge=0, description="seed of draws, random latents, random dictionary and permutations"
    )
    bootstrap: BootstrapSettings = Field(
        default_factory=BootstrapSettings, description="intervals over proposals; recall: values"
    )

    @model_validator(mode="after")
    def _apart(self) -> Self:
        for key in ("fit_split", "rank_split"):
            if getattr(self, key) == self.split:
                raise ValueError(f"{key} and split are both {self.split!r}: choose another")
        if self.min_share > self.max_share:
            raise ValueError("min_share is above max_share: no latent is left")
        return self

    @property
    def reads_images(self) -> bool:
        return self.judge is not None

    def splits_read(self) -> Iterator[tuple[str, Split]]:
        yield "fit_split", self.fit_split
        if self.rank_split != self.fit_split:
            yield "rank_split", self.rank_split
        yield "split", self.split


METRIC = Metric(
    name="image_attributes",
    makes="attributes that latents of a vision SAE find by themselves",
    settings=ImageAttributeSettings,
    per="vision_sae",
    reads=("features", "records", "sae", "check", "world", "fetched", "judge"),
    section="probing",
    position=150,
    gpu=True,
    message="looking for attributes in images in",
)
