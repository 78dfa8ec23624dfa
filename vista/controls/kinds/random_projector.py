"""Control: a projector that was never trained."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vista.config.control_base import FittedControl

if TYPE_CHECKING:
    from vista.controls.sources import Sources
    from vista.projector.control_tokens import ControlTokens


class Settings(FittedControl):
    """A floor: random weights instead of trained ones, scaled to the point's visual tokens."""


def make(sources: Sources, settings: Settings) -> ControlTokens:
    """Return fresh weights of the point's seed, scaled to the norm of its visual tokens."""
    from vista.controls.sources import in_norm_of
    from vista.projector.module import make_projector

    trained = sources.projector
    fresh = make_projector(
        trained.kind,
        trained.d_vision,
        trained.d_model,
        sources.seed,
        aggregator=trained.aggregator,
    )
    return in_norm_of(sources, fresh.requires_grad_(False).eval(), trained, settings)
