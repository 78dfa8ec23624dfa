"""Plans whose artifacts are all published in no time, with right manifests and idle content."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from vista.engine.artifacts import Provenance, open_artifact, publishing
from vista.engine.code import is_fetch, source_digests, stage_code
from vista.engine.node import Node
from vista.engine.plan import Plan, load_plan

SMOKE = Path(__file__).parents[1] / "config" / "smoke.yaml"


def publish(node: Node, results: Path, content: str = "", packages: Any = None) -> Path:
    """Publish one node's artifact as its job would, its inputs being there; return its folder."""

    def digest(source: Any) -> Any:
        if isinstance(source, tuple):
            return [digest(node) for node in source]
        return open_artifact(results / source.path).digest

    starts = stage_code(node.stage, node.modules)
    code = {} if is_fetch(node.stage) else source_digests(starts)
    inputs = {role: digest(source) for role, source in node.inputs.items()}
    provenance = Provenance(
        node.stage, node.settings, inputs, code, packages or {}, node.input_paths
    )
    with publishing(results, node.stage, node.folder, provenance) as work:
        if work is not None:
            (work / "content.txt").write_text(content or node.path)
            if node.stage == "report":
                for kind in ("csv", "parquet", "md"):
                    (work / f"summary.{kind}").touch()
    return results / node.path


def publish_all(plan: Plan, results: Path) -> None:
    """Publish every artifact of a plan that is not there yet."""
    for node in plan.nodes.values():
        if not (results / node.path / "manifest.json").is_file():
            publish(node, results)


def smoke() -> dict[str, Any]:
    """The smoke config with a few of its metrics, and without its controls."""
    content: dict[str, Any] = yaml.safe_load(SMOKE.read_text())
    metrics = ("probe", "naming", "reconstruction", "matching_rate", "caption")
    chosen = {name: content["metrics"][name] for name in metrics}
    return {**content, "metrics": chosen, "sweep": content["sweep"][:1]}


class FinishedRun:
    """A finished run of the smoke config in a folder; `content` is the config, to be changed."""

    def __init__(self, folder: Path, finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self.capsys = folder, capsys
        self.results = folder / "results"
        self.content = {**smoke(), "results": str(self.results)}
        shutil.copytree(finished, self.results)

    @property
    def plan(self) -> Plan:
        return load_plan(self.content)

    def config(self, name: str = "config") -> Path:
        path = self.folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump(self.content))
        return path

    def node(self, stage: str, name: str = "", plan: Plan | None = None) -> Node:
        nodes = (plan or self.plan).nodes.values()
        return next(n for n in nodes if n.stage == stage and n.name.startswith(name))
