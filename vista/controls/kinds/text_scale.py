"""Control: the SAE's input in the scale of text."""

from __future__ import annotations

from typing import ClassVar

from vista.config.control_base import ControlSettings, Reach


class Settings(ControlSettings):
    """The SAEs read the residual stream at visual tokens times one number a layer, which gives it
    the root mean square norm of the text control; the language model reads the tokens as they
    are. Nothing is tuned, so it stands beside every point unless it is null."""

    reach: ClassVar[Reach] = "latents"
    by_default: ClassVar[bool] = True
