"""Plug-ins: encoder families, judges and metrics of other installed packages, by entry points.

The entry point's name is the name in a config, and its value is the module, with the contract of a
file of this package. Names are read from the packages' metadata; a plug-in is imported when it is
used. Jobs that use none do not search for any.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

from pydantic import BaseModel, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import PydanticOmit, core_schema

from vista.config.registry import PACKAGE, names_in
from vista.errors import UserError, reason_of

ENCODERS, JUDGES, METRICS = "vista.encoders", "vista.judges", "vista.metrics"


@dataclass(frozen=True)
class Plugin:
    """An entry point of an installed package.

    Attributes:
        group: Group of the entry point, such as "vista.metrics".
        name: Its name.
        module: Its value: a dotted module name.
        package: Name of the installed package.
    """

    group: str
    name: str
    module: str
    package: str

    def __str__(self) -> str:
        return f"entry point {self.name} = {self.module!r} ({self.group}) of package {self.package}"

    def refusal(self, reason: str) -> UserError:
        """Return the error that says why the plug-in cannot be used, and what to do."""
        return UserError(f"{self} {reason}; correct or uninstall {self.package}")

    def part(self, part: str) -> str:
        """Return the dotted name of the file `part` in its folder, else that of the module."""
        name = f"{self.module}.{part}"
        return name if module_file(name) is not None else self.module

    def load(self, module: str | None = None) -> ModuleType:
        """Import the plug-in, or another module of it. Raises UserError if that fails."""
        name = module or self.module
        try:
            return importlib.import_module(name)
        except Exception as error:
            raise self.refusal(f"cannot import {name} ({reason_of(error)})") from error

    def definition(self, name: str) -> Any:
        """Return a definition of the plug-in's module. Raises UserError if it has none."""
        module = self.load()
        if not hasattr(module, name):
            raise self.refusal(f"has no {name}, which its module must define")
        return getattr(module, name)


@functools.cache
def _installed() -> Mapping[str, tuple[Plugin, ...]]:
    """Return all entry points of the groups, by group. Takes some 10 ms: hence by need alone."""
    from importlib.metadata import entry_points

    every = entry_points()
    return {
        group: tuple(
            Plugin(group, entry.name, entry.value, entry.dist.name if entry.dist else "(unnamed)")
            for entry in every.select(group=group)
            # Names become keys of a config, names of rules and of folders.
            if entry.name.isidentifier() and not entry.name.startswith("_")
        )
        for group in (ENCODERS, JUDGES, METRICS)
    }


def plugin_names(group: str) -> list[str]:
    """Return the names of the plug-ins of a group, sorted."""
    return sorted({plugin.name for plugin in _installed()[group]})


def find_plugin(group: str, name: str) -> Plugin | None:
    """Return a plug-in by its name; None if there is none. Imports nothing.

    Raises:
        UserError: Several packages have one of this name, or its value is no module.
    """
    found = [plugin for plugin in _installed()[group] if plugin.name == name]
    if len(found) > 1:
        raise UserError(f"{found[0]} has the name of {found[1]}: uninstall one of the two packages")
    for plugin in found:
        if not all(part.isidentifier() for part in plugin.module.split(".")):
            raise plugin.refusal("does not name a module")
    return found[0] if found else None


def refuse_clash(group: str, name: str) -> None:
    """Refuse a plug-in with the name of an entry of this package, which comes first.

    Raises:
        UserError: There is one.
    """
    for plugin in _installed()[group]:
        if plugin.name == name:
            raise UserError(
                f"{plugin} has the name of {name!r} of VISTA itself; rename it or uninstall "
                f"{plugin.package}"
            )


@dataclass(frozen=True)
class Registry:
    """Entries of one kind: the files of a folder of this package, and the plug-ins of a group.

    Attributes:
        what: What an entry is, for messages.
        package: Dotted name of the folder.
        group: Group of the plug-ins.
    """

    what: str
    package: str
    group: str

    def own(self) -> list[str]:
        """Return the names of the entries of this package, sorted."""
        return names_in(PACKAGE.joinpath(*self.package.split(".")[1:]))

    def names(self) -> list[str]:
        """Return the names of all entries: those of this package, then plug-ins."""
        own = self.own()
        return [*own, *(name for name in plugin_names(self.group) if name not in own)]

    def plugin(self, name: str) -> Plugin | None:
        """Return the plug-in of this name; None for an entry of this package, or for none."""
        return None if name in self.own() else find_plugin(self.group, name)

    def known(self, name: str) -> str:
        """Return `name` if it has an entry, else raise ValueError that lists the entries."""
        if name not in self.own() and find_plugin(self.group, name) is None:
            names = ", ".join(self.names())
            raise ValueError(f"{self.what} {name!r} is unknown; choose one of {names}")
        return name

    def module(self, name: str) -> str:
        """Return the module of an entry, without importing it."""
        plugin = self.plugin(name)
        return f"{self.package}.{name}" if plugin is None else plugin.module


FAMILIES = Registry("family", "vista.encoders.families", ENCODERS)
KINDS = Registry("judge", "vista.judges.kinds", JUDGES)


@functools.cache
def _top_module(name: str) -> ModuleSpec | None:
    return find_spec(name)


def module_file(name: str) -> Path | None:
    """Return the source file of a module, found without importing it or its packages.

    Returns:
        The file; None if there is no such module, or no source of it.
    """
    root, *below = name.split(".")
    try:
        spec = _top_module(root)
    except (ImportError, ValueError):
        return None
    if spec is None:
        return None
    if not below:
        file = Path(spec.origin) if spec.origin else None
        return file if file is not None and file.suffix == ".py" and file.is_file() else None
    folders = [Path(folder) for folder in spec.submodule_search_locations or ()]
    for folder in (folder.joinpath(*below[:-1]) for folder in folders):
        for file in (folder / below[-1] / "__init__.py", folder / f"{below[-1]}.py"):
            if file.is_file():
                return file
    return None


class PluginSettings:
    """Marks a field whose settings have a plug-in's model, which is imported when it is needed.

        Annotated[Any, PluginSettings(validate, models)]

    Args:
        validate: Returns the validated settings of a value.
        models: Returns the models for the JSON schema; for none, the field is left out of it.
    """

    def __init__(
        self,
        validate: Callable[[Any], BaseModel],
        models: Callable[[], Iterable[type[BaseModel]]],
    ) -> None:
        self._validate, self._models = validate, models

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        dump = core_schema.plain_serializer_function_ser_schema(_dumped, info_arg=True)
        return core_schema.no_info_plain_validator_function(self._validate, serialization=dump)

    def __get_pydantic_json_schema__(
        self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        parts = [handler(model.__pydantic_core_schema__) for model in self._models()]
        if not parts:
            raise PydanticOmit
        return parts[0] if len(parts) == 1 else {"anyOf": parts}


def _dumped(value: BaseModel, info: core_schema.SerializationInfo) -> Any:
    return value.model_dump(mode=info.mode)
