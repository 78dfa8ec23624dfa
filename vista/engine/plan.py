"""The plan: a config expanded into the artifacts that it asks for, looked up as the workflow does.

Fast, since every cluster job parses the workflow again. Its only effects are files for orders that
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
from vista.errors import UserError

# In characters. Linux passes no argument of 128 KB to a program, and a report over thousands of
# metrics has a longer order.
LONGEST_ORDER = 100_000
ORDERS = "orders"
LINKS = "links"


class Plan:
    """All nodes of a config, by (stage, folder), and by folder as the workflow's rules do.

    `where` is the config's name in errors. Raises UserError where parts of it do not fit.
    """

    def __init__(self, config: RunConfig, where: str = "config") -> None:
        self.config = config
        self.results = config.results
        self.nodes: dict[tuple[str, str], Node] = {}
        # A folder's name holds an id, which belongs to one stage.
        self._by_folder: dict[str, Node] = {}
        # The report has everything else behind it.
        try:
            self._add(Graph(config).report())
        except UserError as error:
            raise UserError(f"{where}: {error}") from None

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
        """Return the node whose artifact has this folder."""
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
        """Return what a job is called with, and the digest of its code: a change of either is a
        reason to run it again."""
        return {"spec": self.spec(folder), "code": self.code(folder)}

    def spec(self, folder: str) -> str:
        """Return a job's whole order: as JSON, or "@FILE" where that is too long for a command."""
        spec = self.node(folder).spec
        if len(spec) <= LONGEST_ORDER:
            return spec
        # Its name says what is in it, so that another order is another parameter of the job.
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
        """Return the files that mark the parts of a job as done, where several jobs share it.

        `recorded(manifest)` gives the files that an artifact was made from, None where it never
        was. A finished artifact keeps the parts that it was made from, so changing `jobs` does not
        rebuild it.
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
        """A path that Snakemake takes as it is: the file's own, or that of a link to it.

        Snakemake reads braces as wildcards, also in the paths that an input function returns, and
        knows no escape.
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
    """Return the plan of a config file, or of a config already read from one.

    Raises UserError where the config is wrong.
    """
    if isinstance(config, Path):
        return Plan(load_config(config), where=str(config))
    return Plan(parse_config(config))


def workflow_plan(config: Mapping[str, Any], root: Path) -> Plan:
    """Return the plan for the Snakefile: of `--configfile`, else of `root`/config/default.yaml.

    A wrong config ends Snakemake with one sentence, since an exception would show a traceback.
    """
    try:
        return load_plan(config or root / "config" / "default.yaml")
    except UserError as error:
        raise SystemExit(f"vista: {error}") from None
