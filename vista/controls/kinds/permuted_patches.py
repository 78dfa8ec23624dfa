"""Control: the visual tokens of the image, at other patches."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from vista.config.control_base import ControlSettings

if TYPE_CHECKING:
    from vista.controls.sources import Sources
    from vista.projector.control_tokens import ControlTokens


class Settings(ControlSettings):
    """A floor of localization: the patches of each image are permuted, so its content stays and
    its places do not."""

    shuffle_seed: int = Field(0, ge=0, description="seed of the permutations")


def make(sources: Sources, settings: Settings) -> ControlTokens:
    """Return the point's own projector, and a permutation of the patches of each record."""
    import numpy as np

    from vista.projector.control_tokens import ControlTokens

    rng = np.random.default_rng(settings.shuffle_seed)
    n_records, n_patches = len(sources.records), sources.features.shape[1]
    patch_rp = rng.permuted(np.tile(np.arange(n_patches), (n_records, 1)), axis=1)
    return ControlTokens(sources.projector, patches=patch_rp)
