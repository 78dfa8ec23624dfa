"""The nodes of packages, and how sources refer to them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from vista.config.packages import AnyPackage, FolderPackage, JoinedPackage
from vista.engine.node import Inputs, Node, dump, pick
from vista.engine.user_files import state_of


class Packages:
    """The entries of `packages` of a config."""

    def __init__(self, entries: Mapping[str, AnyPackage]) -> None:
        self._entries = entries
        self._nodes: dict[str, Node] = {}

    def node(self, name: str) -> Node:
        """Return the node of an entry."""
        if name not in self._nodes:
            self._nodes[name] = package_node(name, self._entries[name])
        return self._nodes[name]

    def numbered(self, settings: Mapping[str, Any]) -> tuple[dict[str, Any], Inputs]:
        """Return dumped settings in which each `package` is a number of the input `packages`, and
        that input; none where no source names a package.

        So an id depends on the packages and not on what the config calls them.
        `vista.inputs.package_files.package_of` looks a number up.
        """
        nodes: list[Node] = []

        def number(name: str) -> str:
            node = self.node(name)
            if node not in nodes:
                nodes.append(node)
            return str(nodes.index(node))

        def replaced(value: Any) -> Any:
            if isinstance(value, Mapping):
                return {
                    key: number(part) if key == "package" and part is not None else replaced(part)
                    for key, part in value.items()
                }
            return [replaced(part) for part in value] if isinstance(value, list) else value

        order: dict[str, Any] = replaced(settings)
        return order, {"packages": tuple(nodes)} if nodes else {}


def package_node(name: str, package: AnyPackage) -> Node:
    """Return the node that fetches, links to or joins the files of an entry of `packages`."""
    if isinstance(package, JoinedPackage):
        parts = enumerate(package.accepted_parts())
        nodes = tuple(package_node(f"{name}.parts.{number}", part) for number, part in parts)
        order = pick(package, "kind", "file", "sha256")
        return Node(
            "join_package", PurePosixPath(package.file).stem, {"package": order}, {"parts": nodes}
        )
    if not isinstance(package, FolderPackage):
        return Node("fetch_package", package.package, {"package": dump(package)})
    # Two folders of one config are two artifacts also where the rest of their settings is equal.
    watched = package.watched()
    order = {**dump(package), "name": name, "state": state_of(watched)}
    return Node("fetch_package", name, {"package": order}, files=watched)
