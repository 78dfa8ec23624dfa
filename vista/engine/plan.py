"""The plan of a config: all nodes, and what the workflow's rules ask of them.

It is fast, since every cluster job parses the workflow again. It writes only files of orders that
are too long for a command line, and links to files whose names Snakemake would misread.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from vista.config.reading import load_config, parse_config
from vista.config.run import RunConfig
from vista.engine.artifacts import MANIFEST, digest_text
from vista.engine.code import code_digest, is_fetch, stage_code
from vista.engine.graph import Graph
from vista.engine.locks import WORK
from vista.engine.node import Node
from vista.engine.shipped import shipped
from vista.errors import UserError

# In characters. Linux limits an argument of a program to 128 KB, and the order of a report over
# thousands of metrics is longer.
LONGEST_ORDER = 100_000
ORDERS = "orders"
LINKS = "links"


class Plan:
    """All nodes of a config by (stage, folder), parents before children.

    `place` names the config in errors. Raises UserError if parts of it do not fit together.
    """

    def __init__(self, config: RunConfig, place: str = "config") -> None:
        self.config = config
        self.results = config.results
        self.nodes: dict[tuple[str, str], Node] = {}
        # Unique: a folder's name ends in an id, a hash over the stage.
        self._by_folder: dict[str, Node] = {}
        try:
            self._add(Graph(config).root())
        except UserError as error:
            raise UserError(f"{place}: {error}") from None

    def _add(self, node: Node) -> None:
        key = (node.stage, node.folder)
        if key not in self.nodes:
            for parent in node.parents():
                self._add(parent)
            self.nodes[key] = self._by_folder[node.folder] = node

    def manifests(self) -> list[str]:
        """Return the manifest of every artifact that the config asks for."""
        return [self._manifest(node) for node in self.nodes.values()]

    def node(self, folder: str) -> Node:
        """Return the node of an artifact's folder."""
        return self._by_folder[folder]

    def inputs(self, folder: str, roles: Iterable[str]) -> dict[str, list[str]]:
        """Return the files that a job waits for, by role: the manifests of its input artifacts.

        The role "files" means the user's files; one that ends in "*" means all roles that begin so.
        A role that the job does not have is left out.
        """
        node = self.node(folder)
        files: dict[str, list[str]] = {}
        for role in roles:
            if role in node.inputs:
                files[role] = self._manifests(node.inputs[role])
            elif role == "files" and node.files:
                files[role] = list(map(self._user_file, node.files))
            elif role.endswith("*"):
                family = [name for name in node.inputs if name.startswith(role[:-1])]
                files |= {name: self._manifests(node.inputs[name]) for name in family}
        return files

    def order(self, folder: str) -> dict[str, str]:
        """Return a job's order and the digest of its code: a change of either reruns the job."""
        node = self.node(folder)
        return {"stage": node.stage, "spec": self.spec(folder), "code": self.code(folder)}

    def spec(self, folder: str) -> str:
        """Return a job's order as JSON; "@FILE" if it is too long for a command line."""
        spec = self.node(folder).spec
        if len(spec) <= LONGEST_ORDER:
            return spec
        # The name is the digest of the order, so another order is another parameter of the job.
        path = Path(self.results) / WORK / ORDERS / f"{digest_text(spec)}.json"
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            unfinished = path.with_suffix(f".{os.getpid()}")
            unfinished.write_text(spec, encoding="utf-8")
            unfinished.replace(path)
        return f"@{path}"

    def code(self, folder: str) -> str:
        """Return the digest of the stage's code; empty for fetch stages."""
        node = self.node(folder)
        if is_fetch(node.stage):
            return ""
        return code_digest(stage_code(node.stage, node.modules))

    def parts(self, folder: str, recorded: Callable[[str], Sequence[str] | None]) -> list[str]:
        """Return the files that mark the parts of an artifact as done, if several jobs share it.

        A finished artifact keeps the list of parts that it was built from, so changing `jobs` does
        not rebuild it.

        Args:
            folder: The artifact's folder.
            recorded: Returns the input files that Snakemake recorded for a manifest; None if it
                recorded none.
        """
        node = self.node(folder)
        start = f"{self.results}/{WORK}/{node.path}."
        made_from = recorded(self._manifest(node))
        if made_from is not None:
            return [name for name in made_from if name.startswith(start)]
        jobs = node.jobs
        return [f"{start}{part}of{jobs}" for part in range(1, jobs + 1)] if jobs > 1 else []

    @property
    def report(self) -> str:
        """The manifest of the run's report."""
        return next(self._manifest(n) for n in self.nodes.values() if n.stage == "report")

    def _user_file(self, name: str) -> str:
        """Return a path without braces: that of the file, or of a link to it.

        Snakemake reads braces as wildcards, also in paths that an input function returns, and has
        no escape for them.
        """
        if not {"{", "}"} & set(name):
            return name
        link = Path(self.results) / WORK / LINKS / digest_text(name)[:16]
        link = link.with_name(f"{link.name}-{re.sub(r'[^A-Za-z0-9_.-]+', '_', Path(name).name)}")
        if not link.is_symlink():
            link.parent.mkdir(parents=True, exist_ok=True)
            unfinished = link.with_name(f"{link.name}.{os.getpid()}")
            unfinished.symlink_to(Path(name).absolute())
            unfinished.replace(link)
        return str(link)

    def _manifest(self, node: Node) -> str:
        return f"{self.results}/{node.path}/{MANIFEST}"

    def _manifests(self, source: Node | tuple[Node, ...]) -> list[str]:
        nodes = source if isinstance(source, tuple) else (source,)
        return list(map(self._manifest, nodes))


def load_plan(config: Path | Mapping[str, Any]) -> Plan:
    """Return the plan of a config file, or of the content of one.

    Raises UserError if the config is wrong.
    """
    if isinstance(config, Path):
        return Plan(load_config(config), place=str(config))
    return Plan(parse_config(config))


def workflow_plan(config: Mapping[str, Any]) -> Plan:
    """Return the plan for the Snakefile, of `config` or else of the package's default config.

    Exits with one sentence if the config is wrong; Snakemake would print an exception's traceback.
    """
    try:
        return load_plan(config or shipped() / "config" / "default.yaml")
    except UserError as error:
        raise SystemExit(f"vista: {error}") from None
