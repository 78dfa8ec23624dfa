"""Control: projectors trained with a penalty on the squared stream in place of the SAE term."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from vista.config.control_base import ControlSettings


class Settings(ControlSettings):
    """Projectors trained with the mean squared residual stream at visual tokens in place of the SAE
    term: what small tokens alone are worth. The weight of the penalty stands in the column
    `sae_weight`."""

    trains: ClassVar[bool] = True
    weights: tuple[float, ...] = Field(
        (0.3, 1.0), min_length=1, description="weights of the penalty"
    )
