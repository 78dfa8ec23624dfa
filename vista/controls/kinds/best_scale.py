"""Control: visual tokens in the scale that the labelled latents read best."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from vista.config.control_base import FittedControl


class Settings(FittedControl):
    """Visual tokens times the number at which the matching rate on validation images is largest,
    chosen for every weight alike: both sides of a comparison in their best scale."""

    reads_saes: ClassVar[bool] = True
    norms: tuple[float, ...] = Field(
        (0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 8.0),
        min_length=1,
        description="norms that are tried, as multiples of that of text; the point's own is tried, "
        "too",
    )
