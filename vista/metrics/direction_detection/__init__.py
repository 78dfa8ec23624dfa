"""Directions as detectors: how well projections on them tell a concept's patches from others."""

from __future__ import annotations

from pydantic import Field, field_validator

from vista.config.data import Split
from vista.config.edits import FITTED, Fitted
from vista.config.metric import ChosenEncoders, Metric
from vista.config.metrics import BootstrapSettings, refuse_twice


class DirectionDetectionSettings(ChosenEncoders):
    """AUROC of the projection of visual tokens on directions of classes, by block, and of a linear
    combination of the projections of all blocks (monitoring by universal steering, arXiv
    2502.03708). All methods read the same tokens; blocks are those with an SAE."""

    methods: tuple[Fitted, ...] = Field(
        FITTED, min_length=1, description="how directions are fitted in the residual stream"
    )
    fit_split: Split = Field("validation", description="images that directions are fitted on")
    split: Split = Field("test", description="images that they are scored on")
    stacked: float = Field(
        1 / 3,
        gt=0,
        lt=1,
        description="share of the images of `fit_split` that directions are not fitted on, but the "
        "combination of their projections",
    )
    max_images: int | None = Field(
        1000,
        ge=8,
        description="most images a split, drawn with the seed; null: all. Memory holds their "
        "sampled tokens at every block",
    )
    patches_per_image: int = Field(
        16, ge=1, description="most patches of an image's objects, and most others"
    )
    min_images: int = Field(
        5, ge=2, description="images of `split`, and of `fit_split`, that a class is in, at least"
    )
    regularisation: float = Field(
        1.0, gt=0, description="L2 penalty of `logistic` and of the combination (1 / C)"
    )
    batch_size: int = Field(64, ge=1, description="images a forward pass")
    seed: int = Field(0, ge=0, description="seed of the draws and of the random direction")
    bootstrap: BootstrapSettings = Field(
        default_factory=BootstrapSettings, description="intervals over classes"
    )

    @field_validator("methods")
    @classmethod
    def _distinct(cls, methods: tuple[Fitted, ...]) -> tuple[Fitted, ...]:
        refuse_twice(methods)
        return methods


METRIC = Metric(
    name="direction_detection",
    makes="how well projections on fitted directions detect a class",
    settings=DirectionDetectionSettings,
    per="point",
    reads=("features", "records", "projector", "llm", "files"),
    position=75,
    patches=True,
    gpu=True,
    message="detecting classes along fitted directions in",
)
