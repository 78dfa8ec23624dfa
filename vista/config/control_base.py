"""Base of the settings of controls, and what a control says of itself to the plan."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from vista.config.base import Settings
from vista.config.data import Split

# What is measured of a control: "tokens", all metrics of a point; "latents", those that read its
# latents alone, since its visual tokens are those of its point.
Reach = Literal["tokens", "latents"]


class ControlSettings(Settings):
    """Settings of a control: a point of the sweep whose visual tokens are changed on purpose.

    Attributes:
        needs_baseline: It reads the projector without the SAE term beside that of its own weight,
            which must be positive.
        once: It reads no projector, so it is measured once for an encoder and a language model.
        reads_saes: It is made by a stage of its own, which reads the SAEs and their labels.
        trains: It trains projectors of its own, with the weights that its settings name.
        reach: What is measured of it.
        by_default: It is measured unless the config says `null`.
    """

    needs_baseline: ClassVar[bool] = False
    once: ClassVar[bool] = False
    reads_saes: ClassVar[bool] = False
    trains: ClassVar[bool] = False
    reach: ClassVar[Reach] = "tokens"
    by_default: ClassVar[bool] = False


class FittedControl(ControlSettings):
    """A control with a number that is taken from images."""

    split: Split = Field(
        "validation", description="images whose visual tokens the number is taken from"
    )
    images: int = Field(256, ge=1, description="at most so many of them, the first of the split")
