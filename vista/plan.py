"""The plan: a config expanded into the artifacts that it asks for, and what each is made from.

An artifact's id is a hash over its stage, exactly the settings that the stage depends on, and the
ids of its inputs. So two configs that share a stage share its artifact, and turning a setting
back finds the old one. Pure and fast: every cluster job parses the workflow again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from vista.artifacts import MANIFEST, canonical_json, digest_text
from vista.code import code_digest
from vista.config.run import Point, RunConfig, load_config, parse_config

Inputs = Mapping[str, "Node | tuple[Node, ...]"]


@dataclass(frozen=True, eq=False)
class Node:
    """One artifact to be: its stage, own settings and inputs.

    `modules` are code that the stage loads by name (an encoder family) and that therefore counts
    as its own; `files` are the user's files that it reads.
    """

    stage: str
    name: str
    settings: Mapping[str, Any]
    inputs: Inputs = field(default_factory=dict)
    modules: tuple[str, ...] = ()
    files: tuple[str, ...] = ()

    @cached_property
    def id(self) -> str:
        inputs = {
            role: [each.id for each in found] if isinstance(found, tuple) else found.id
            for role, found in self.inputs.items()
        }
        return digest_text(canonical_json([self.stage, self.settings, inputs]))[:10]

    @cached_property
    def folder(self) -> str:
        return f"{self.name}-{self.id}"

    @property
    def path(self) -> str:
        """The artifact's folder below the results folder."""
        return f"{self.stage}/{self.folder}"

    def parents(self) -> list[Node]:
        """Return the input nodes, in the order of the roles."""
        return [
            node
            for found in self.inputs.values()
            for node in (found if isinstance(found, tuple) else (found,))
        ]

    @cached_property
    def spec(self) -> str:
        """The job's whole order as canonical JSON: what the rule passes to the stage."""
        inputs = {
            role: [each.path for each in found] if isinstance(found, tuple) else found.path
            for role, found in self.inputs.items()
        }
        return canonical_json(
            {
                "node": self.folder,
                "settings": self.settings,
                "inputs": inputs,
                "modules": list(self.modules),
            }
        )


class Plan:
    """All nodes of a config, looked up by (stage, folder) as the workflow's rules do."""

    def __init__(self, config: RunConfig) -> None:
        self.config = config
        self.results = config.results
        self.nodes: dict[tuple[str, str], Node] = {}
        for node in _targets(config):
            self._add(node)

    def _add(self, node: Node) -> None:
        key = (node.stage, node.folder)
        if key not in self.nodes:
            for parent in node.parents():
                self._add(parent)
            self.nodes[key] = node

    def manifests(self) -> list[str]:
        """Return the manifest of every artifact that the config asks for."""
        return [self._manifest(node) for node in self.nodes.values()]

    def inputs(self, stage: str, folder: str) -> list[str]:
        """Return the files that a job waits for: its inputs' manifests and the user's files."""
        node = self.nodes[stage, folder]
        return [*map(self._manifest, node.parents()), *node.files]

    def spec(self, stage: str, folder: str) -> str:
        """Return the job's order as canonical JSON."""
        return self.nodes[stage, folder].spec

    def code(self, stage: str, folder: str) -> str:
        """Return the digest of the code that the job runs."""
        return code_digest((f"vista.stages.{stage}", *self.nodes[stage, folder].modules))

    @property
    def report(self) -> str:
        """The manifest of the run's report."""
        return next(self._manifest(n) for n in self.nodes.values() if n.stage == "report")

    def _manifest(self, node: Node) -> str:
        return f"{self.results}/{node.path}/{MANIFEST}"


def load_plan(config: Path | Mapping[str, Any]) -> Plan:
    """Return the plan of a config file, or of a config already read from one.

    Raises UserError where the config is wrong.
    """
    if isinstance(config, Path):
        return Plan(load_config(config))
    return Plan(parse_config(config))


def workflow_plan(config: Mapping[str, Any], root: Path) -> Plan:
    """Return the plan for the Snakefile: of `--configfile`, else of `root`/config/default.yaml."""
    return load_plan(config) if config else load_plan(root / "config" / "default.yaml")


def _targets(config: RunConfig) -> list[Node]:
    """Return the nodes that nothing else leads to: with their inputs they are the whole run."""
    return [_Builder(config).report()]


class _Builder:
    """Makes each node of one config from the config's parts."""

    def __init__(self, config: RunConfig) -> None:
        self.config = config
