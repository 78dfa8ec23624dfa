"""Out of distribution: do scores from an SAE tell images of other sets from held-out ones?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Self

from pydantic import Field, model_validator

from vista.config.base import later
from vista.config.data import Split
from vista.config.metric import Metric, MetricSettings
from vista.config.metrics import BootstrapSettings, refuse_same_split, refuse_twice


class OodDetectionSettings(MetricSettings):
    """AUROC and FPR95 (Hendrycks and Gimpel, arXiv 1610.02136) of scores that separate images of
    other distributions, near and far (OpenOOD, arXiv 2210.07242), from held-out ones. The scores on
    an SAE's latents are defined here: of arXiv 2508.11277 only the abstract is public."""

    near: tuple[str, ...] = Field((), description="sets of `probing.data` of the same kind")
    far: tuple[str, ...] = Field((), description="sets of `probing.data` of another kind")
    fit_split: Split = Field("train", description="images that scores are fitted on")
    fit_images: int | None = Field(
        None,
        ge=2,
        description="fit on so many of them, drawn at random; null: on all. Memory holds their "
        "latents, those of a random dictionary and copies: 16 bytes for each image and latent",
    )
    split: Split = Field("test", description="images of every set that are told apart")
    neighbours: int = Field(10, ge=1, description="k of the nearest-neighbour distance")
    components: int = Field(
        256, ge=1, description="principal components that Mahalanobis distances are measured in"
    )
    smoothing: float = Field(
        0.01, gt=0, lt=1, description="share of the uniform distribution in every class profile"
    )
    core_share: float = later(
        0.15,
        gt=0,
        le=1,
        description="share of the SAE's latents that are the core of a class, for energy profiles; "
        ".15 as published",
    )
    regularisation: float = Field(0.3, gt=0, description="scikit-learn's C: smaller is stronger")
    iterations: int = Field(100, ge=1, description="iterations of the probe's solver")
    seed: int = Field(0, ge=0, description="seed of the random score, of components and draws")
    bootstrap: BootstrapSettings = Field(
        default_factory=BootstrapSettings, description="intervals over images"
    )

    @model_validator(mode="after")
    def _apart(self) -> Self:
        if not (self.near or self.far):
            raise ValueError("name a set under `near` or `far`")
        if both := sorted(set(self.near) & set(self.far)):
            raise ValueError(f"{both[0]!r} stands under `near` and `far`")
        refuse_twice(self.near, self.far)
        refuse_same_split(self.fit_split, self.split)
        return self

    def sets_read(self) -> Iterator[tuple[str, str]]:
        yield from (("near", name) for name in self.near)
        yield from (("far", name) for name in self.far)


METRIC = Metric(
    name="ood_detection",
    makes="do scores from an SAE tell other images from held-out ones",
    settings=OodDetectionSettings,
    per="vision_sae",
    reads=("features", "records", "sae", "check", "set_features", "set_records"),
    section="probing",
    position=120,
    gpu=True,
    message="telling other images from held-out ones in",
)
