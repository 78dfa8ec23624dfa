"""Make artifacts of a config by their readable names, with all their ancestors."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from vista.engine.plan import Plan, load_plan
from vista.engine.shipped import snakefile_in
from vista.errors import UserError

_MOST_NAMED = 8


def make(stage: str, names: Sequence[str], config: Path, options: Sequence[str]) -> None:
    """Replace this process by Snakemake, which makes artifacts of a stage.

    Args:
        stage: A stage of the plan.
        names: Readable names of its artifacts, or patterns such as `dinov2-*`; none: all.
        config: The config that asks for them.
        options: Further options for Snakemake.

    Raises:
        UserError: The config is wrong or asks for no such artifact, or there is no Snakefile here.
    """
    targets = manifests(load_plan(config), stage, names or ["*"], config)
    if snakefile_in(Path()) is None:
        raise UserError(
            "there is no Snakefile here: change to the project's folder (`vista init`)."
        )
    has_cores = any(option.startswith(("--cores", "-c", "-n")) for option in options)
    command = [sys.executable, "-m", "snakemake", *targets, "--configfile", str(config)]
    command += [*([] if has_cores else ["--cores=all"]), "--rerun-incomplete", *options]
    os.execv(sys.executable, command)


def manifests(plan: Plan, stage: str, names: Sequence[str], config: Path) -> list[str]:
    """Return the manifests of a stage's artifacts whose name or folder matches a pattern.

    Raises UserError if a pattern matches none.
    """
    nodes = [node for node in plan.nodes.values() if node.stage == stage]
    if not nodes:
        stages = sorted({node.stage for node in plan.nodes.values()})
        raise UserError(f"{config} asks for no {stage}; its stages: {', '.join(stages)}.")
    chosen: dict[str, None] = {}
    for pattern in names:
        hits = [
            node
            for node in nodes
            if fnmatchcase(node.name, pattern) or fnmatchcase(node.folder, pattern)
        ]
        if not hits:
            known = sorted({node.name for node in nodes})
            more = f" and {len(known) - _MOST_NAMED} more" if len(known) > _MOST_NAMED else ""
            raise UserError(
                f"{config} asks for no {stage} {pattern!r}; there are "
                f"{', '.join(known[:_MOST_NAMED])}{more}."
            )
        chosen |= dict.fromkeys(f"{plan.results}/{node.path}/manifest.json" for node in hits)
    return list(chosen)
