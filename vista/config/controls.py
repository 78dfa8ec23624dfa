"""The controls of a sweep: one field for each file of `vista/controls/kinds`."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from pydantic import Field, create_model

from vista.config.base import Settings
from vista.config.control_base import ControlSettings
from vista.config.registry import PACKAGE, names_in


def control_names() -> list[str]:
    """Return the names of all controls, sorted."""
    return names_in(PACKAGE / "controls" / "kinds")


def control_module(name: str) -> str:
    """Return the module of a control."""
    return f"vista.controls.kinds.{name}"


def control_settings(name: str) -> type[ControlSettings]:
    """Return the model of a control's settings."""
    settings: type[ControlSettings] = importlib.import_module(control_module(name)).Settings
    return settings


class ChosenControls(Settings):
    """Controls of the points of a block; one that is null is not measured."""

    def chosen(self) -> Iterator[tuple[str, ControlSettings]]:
        """Yield the controls that are measured, by name."""
        for name in control_names():
            if (settings := getattr(self, name)) is not None:
                yield name, settings


def _field(name: str) -> Any:
    kind = control_settings(name)
    lines = (kind.__doc__ or name).split("\n\n")[0].split("\n")
    default = kind() if kind.by_default else None
    return kind | None, Field(default, description=" ".join(line.strip() for line in lines))


if TYPE_CHECKING:
    Controls = ChosenControls
else:
    Controls = create_model(
        "Controls",
        __base__=ChosenControls,
        __doc__=ChosenControls.__doc__,
        __module__=__name__,
        **{name: _field(name) for name in control_names()},
    )
