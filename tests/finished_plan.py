"""A plan whose artifacts are all published in no time: of the right records, with idle content."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vista.engine.artifacts import Provenance, open_artifact, publishing
from vista.engine.code import is_fetch, source_digests, stage_code
from vista.engine.node import Node
from vista.engine.plan import Plan


def publish(node: Node, results: Path, content: str = "", packages: Any = None) -> Path:
    """Publish one node's artifact as its job would, its inputs being there; return its folder."""

    def digest(found: Any) -> Any:
        if isinstance(found, tuple):
            return [digest(each) for each in found]
        return open_artifact(results / found.path).digest

    starts = stage_code(node.stage, node.modules)
    code = {} if is_fetch(node.stage) else source_digests(starts)
    inputs = {role: digest(found) for role, found in node.inputs.items()}
    record = Provenance(node.stage, node.settings, inputs, code, packages or {}, node.input_paths)
    with publishing(results, node.stage, node.folder, record) as work:
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
