"""Control: the same visual token at every patch of every image."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vista.config.control_base import FittedControl

if TYPE_CHECKING:
    from vista.controls.sources import Sources
    from vista.projector.control_tokens import ControlTokens


class Settings(FittedControl):
    """A floor: the mean of the point's visual tokens at every patch; it says nothing of an image,
    and wins every figure that rewards that."""


def make(sources: Sources, settings: Settings) -> ControlTokens:
    """Return a projector without weights, whose bias is the mean visual token."""
    import torch

    from vista.projector.control_tokens import ControlTokens
    from vista.projector.module import Projector

    mean_d = sources.mean(sources.rows(settings.split, settings.images))
    trained = sources.projector
    constant = Projector("linear", trained.d_vision, trained.d_model)
    with torch.no_grad():
        (layer,) = constant.linears()
        layer.weight.zero_()
        layer.bias.copy_(mean_d)
    return ControlTokens(constant, {"norm": float(mean_d.norm())})
