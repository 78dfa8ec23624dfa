"""Settings of the first guess for a projector's training."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from vista.config.base import Settings, later
from vista.config.data import Split


class SuggestSettings(Settings):
    """Short runs that suggest a learning rate, first weights and an SAE weight. What they suggest
    is shown and never used by itself."""

    lrs: tuple[float, ...] = Field(
        (5e-4, 1.5e-3, 5e-3, 1.5e-2, 5e-2),
        min_length=1,
        description="learning rates that are tried",
    )
    weight_factors: tuple[float, ...] = Field(
        (0.1, 0.3, 1.0),
        min_length=1,
        description="SAE weights that are tried, as multiples of the weight at which the gradients "
        "of both terms of the loss have equal norms before training",
    )
    init_scales: tuple[float, ...] = later(
        (),
        description="factors on the first weights that are tried, each with each of `lrs`; none: "
        "the one at which visual tokens have the norm of text",
    )
    weights: tuple[float, ...] = later(
        (), description="SAE weights that are tried in place of `weight_factors`"
    )
    steps: int = Field(30, gt=0, description="optimizer steps a run")
    split: Split = Field("validation", description="images that runs are compared on")
    images: int = Field(64, gt=0, description="at most so many of them")
    seed: int = Field(0, ge=0, description="of the projector and the order of the images")

    @model_validator(mode="after")
    def _positive(self) -> Self:
        for name in ("lrs", "weight_factors", "init_scales", "weights"):
            values = getattr(self, name)
            if any(value <= 0 for value in values) or len(set(values)) != len(values):
                raise ValueError(f"{name} must be positive numbers, none of them twice")
        return self

    @property
    def n_runs(self) -> int:
        """Number of runs: of first weights with learning rates, then of SAE weights."""
        grid = max(1, len(self.init_scales)) * len(self.lrs)
        return grid + len(self.weights or self.weight_factors)
