"""Control: the visual tokens of another image."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from vista.config.control_base import ControlSettings

if TYPE_CHECKING:
    from vista.controls.sources import Sources
    from vista.projector.control_tokens import ControlTokens


class Settings(ControlSettings):
    """A floor: each image has the visual tokens of another one of its split."""

    shuffle_seed: int = Field(0, ge=0, description="seed of the other images")


def make(sources: Sources, settings: Settings) -> ControlTokens:
    """Return the point's own projector, and for each record another of its split; one that is
    alone in its split keeps its own."""
    import numpy as np

    from vista.metrics.shuffled import other_images
    from vista.projector.control_tokens import ControlTokens

    image_r = np.arange(len(sources.records))
    for split in sources.splits:
        rows = sources.records.rows_of(split)
        if len(rows) > 1:
            image_r[rows] = rows[other_images(len(rows), settings.shuffle_seed)]
    return ControlTokens(sources.projector, images=image_r)
