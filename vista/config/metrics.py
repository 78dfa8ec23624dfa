"""Settings of the metrics. Defaults are the published values where there are any."""

from __future__ import annotations

from pydantic import Field

from vista.config.base import Settings
from vista.config.data import Split


class BootstrapSettings(Settings):
    """Intervals over images: percentile bootstrap, and for rates binomial limits (level only)."""

    resamples: int = Field(1000, ge=1, description="Times that the images are drawn anew.")
    level: float = Field(0.95, gt=0, lt=1, description="Coverage of the intervals.")
    seed: int = Field(0, ge=0, description="Seed of the draws.")


class LatentMaskSettings(Settings):
    """Which latents may represent an image (VISTA paper, matching rate)."""

    max_image_share: float = Field(
        0.05, gt=0, le=1, description="Latents active in a larger share of the images are masked."
    )
    max_label_density: float = Field(
        0.005, gt=0, le=1, description="Latents active on a larger share of text tokens are masked."
    )


def refuse_twice(*named: tuple[str, ...]) -> None:
    for names in named:
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise ValueError(f"{twice!r} is named twice; name it once")


def refuse_same_split(fit_split: Split, split: Split) -> None:
    if fit_split == split:
        raise ValueError(f"fit_split and split are both {split!r}: choose another")
