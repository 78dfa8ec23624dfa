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
    from vista.controls.sources import scaled
    from vista.projector.control_tokens import ControlTokens
    from vista.projector.module import make_projector

    trained = sources.projector
    fresh = make_projector(trained.kind, trained.d_vision, trained.d_model, sources.seed)
    fresh = fresh.to(sources.llm.device).requires_grad_(False).eval()
    rows = sources.rows(settings.split, settings.images)
    own, reference = (sources.rms_norm(rows, projector) for projector in (fresh, trained))
    factor = reference / own if own > 0 else 1.0
    facts = {"norm": own, "reference_norm": reference, "factor": factor}
    return ControlTokens(scaled(fresh, factor), facts)
