"""Control: the baseline's visual tokens in the scale of those trained with the SAE term."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from vista.config.control_base import FittedControl

if TYPE_CHECKING:
    from vista.controls.sources import Sources
    from vista.projector.control_tokens import ControlTokens


class Settings(FittedControl):
    """The baseline's visual tokens, times the one number that gives them the root mean square norm
    of the tokens at the weight in the table: a gain that is left over this control is no matter of
    scale."""

    needs_baseline: ClassVar[bool] = True


def make(sources: Sources, settings: Settings) -> ControlTokens:
    """Return the scaled baseline; its facts are both norms and the factor."""
    from vista.controls.sources import in_norm_of

    return in_norm_of(sources, sources.projector, sources.reference, settings)
