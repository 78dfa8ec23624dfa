"""What a method of finding directions declares, and how it is loaded by its name."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from vista.config.edits import method_module, method_names
from vista.errors import UserError

if TYPE_CHECKING:
    from vista.interventions.directions import Directions, Space
    from vista.interventions.search import Search

Role = Literal["latents", "labels", "saes", "llm", "projector", "vision_sae"]


@dataclass(frozen=True)
class DirectionMethod:
    """One way to find a direction for each concept.

    Attributes:
        find: finds the directions; raises UserError where the inputs do not allow it.
        reads: the roles of the inputs that it has beside `records` and `features`. `latents` are
            of the selection split; `labels` are the vision SAE's where it reads one, else those of
            the language model's SAEs. With SAEs come their checks as gates.
        space: what its directions are added to: the residual stream, or the encoder's features.
        has_block: whether each direction in the stream belongs to a block: its latent's, or the
            one after which it was fitted.
    """

    find: Callable[[Search], Directions]
    reads: tuple[Role, ...]
    space: Space = "stream"
    has_block: bool = True

    @property
    def of_latents(self) -> bool:
        """Whether its directions are those of latents, which have activations."""
        return "saes" in self.reads or "vision_sae" in self.reads


def load_method(name: str) -> DirectionMethod:
    """Return the method `name`, from the file of that name. Raises UserError that lists them.

    The code of a method counts only for the nodes that name its module (`Node.modules`), so a new
    method changes the code digest of no other node.
    """
    if name not in (known := method_names()):
        raise UserError(f"method {name!r} is unknown; choose one of {', '.join(known)}")
    method = importlib.import_module(method_module(name)).METHOD
    assert isinstance(method, DirectionMethod)
    return method
