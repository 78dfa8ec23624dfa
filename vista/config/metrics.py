"""Settings of the metrics. Defaults are the published values where there are any."""

from __future__ import annotations

from typing import Literal, NamedTuple

from pydantic import Field

from vista.config.base import Settings
from vista.config.data import Split


class BootstrapSettings(Settings):
    """Intervals over images: percentile bootstrap, and for rates binomial limits (level only)."""

    resamples: int = Field(1000, ge=1, description="Times that the images are drawn anew.")
    level: float = Field(0.95, gt=0, lt=1, description="Coverage of the intervals.")
    seed: int = Field(0, ge=0, description="Seed of the draws.")


# Images that the frequency mask's shares are estimated on.
MaskImages = Literal["validation", "evaluated"]
# Figures beside those under both masks: without one of them, without both.
Without = Literal["no_frequency_mask", "no_density_mask", "unmasked"]
WITHOUT: tuple[Without, ...] = ("no_frequency_mask", "no_density_mask", "unmasked")


class MaskBounds(NamedTuple):
    """Bounds of the two masks of latents; 1 switches a mask off."""

    image_share: float
    label_density: float

    def without(self, name: Without) -> MaskBounds:
        """Return the bounds without one mask or both."""
        return MaskBounds(
            self.image_share if name == "no_density_mask" else 1.0,
            self.label_density if name == "no_frequency_mask" else 1.0,
        )


class LatentMaskSettings(Settings):
    """Which latents may represent an image (VISTA paper, matching rate). Latents without a label
    never do, whatever the bounds, nor do those whose label density is unknown."""

    max_image_share: float = Field(
        0.05, gt=0, le=1, description="Latents active in a larger share of the images are masked."
    )
    max_label_density: float = Field(
        0.005, gt=0, le=1, description="Latents active on a larger share of text tokens are masked."
    )
    images: MaskImages = Field(
        "validation",
        description="Images that `max_image_share` is a share of. validation: the validation "
        "split of the run's data, whose latents are encoded for it. evaluated: the measured "
        "images themselves, as published; so too with `paper_faithful`, and where the data has no "
        "validation images or they are the measured ones.",
    )

    @property
    def bounds(self) -> MaskBounds:
        """The bounds of both masks."""
        return MaskBounds(self.max_image_share, self.max_label_density)


def refuse_twice(*named: tuple[str, ...]) -> None:
    for names in named:
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise ValueError(f"{twice!r} is named twice; name it once")


def refuse_same_split(fit_split: Split, split: Split) -> None:
    if fit_split == split:
        raise ValueError(f"fit_split and split are both {split!r}: choose another")
