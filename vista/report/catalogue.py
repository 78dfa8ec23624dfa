"""The catalogue: what a run has made, by stage and model, so that tools need not search folders.

Its source is the report, which has all of a run behind it: its settings say of which encoder, LLM,
SAE weight, seed and method each of its inputs is, and manifests say what is made from what. An
artifact between them has what its inputs have (directions the encoder of their projector), and a
model what uses it has (an SAE the LLM of its check).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from vista.engine.lineage import PARENTS, parents_of, read_manifest

CATALOGUE = "catalogue.json"
_FORMAT = "vista catalogue 1"
_KEYS = ("encoder", "llm", "sae_weight", "seed", "control", "method", "layer")
# The report's inputs by role, and the list in its settings that says what they are.
_LISTS = {
    "metrics": "points",
    "checks": "checks",
    "projectors": "curves",
    "latents": "latents",
    "labels": "labels",
    "features": "features",
}
# What an input has from the stage that uses it, by (stage, role); "" is any stage.
_FROM_USER = {
    ("features", "encoder"): "encoder",
    ("train_projector", "features"): "encoder",
    ("ood_detection", "set_features"): "encoder",
    ("ood_generalization", "set_features"): "encoder",
    ("", "llm"): "llm",
    ("check_sae", "sae"): "llm",
    ("import_sae", "train_sae"): "llm",
    ("import_sae", "fetched"): "llm",
    ("import_labels", "export"): "llm",
}

Facts = dict[str, Any]


def catalogue(report: Path) -> dict[str, Any]:
    """Return the catalogue of the run that a report is of.

    Args:
        report: Folder of the finished report, RESULTS/report/NAME-ID. What it is made from and is
            not there, or cannot be read, is left out, with what that is made from.

    Returns:
        `format`; `run`, its name; `report` and, for each of `artifacts`, `folder`: STAGE/NAME-ID
        below the results folder. An artifact also has `stage`, `name`, `parents` (the folders of
        its inputs by role), and of encoder, llm, sae_weight, seed, method and layer those that
        apply.
    """
    start = f"{report.parent.name}/{report.name}"
    manifests = _manifests(report.parents[1], start)
    facts = _facts(manifests, start)
    artifacts = [
        {
            "folder": path,
            "stage": path.partition("/")[0],
            "name": path.partition("/")[2].rpartition("-")[0],
            "parents": parents_of(manifest),
            **{key: facts[path][key] for key in _KEYS if key in facts[path]},
        }
        for path, manifest in sorted(manifests.items())
    ]
    name = manifests[start].get("settings", {}).get("name") if start in manifests else None
    return {"format": _FORMAT, "run": name, "report": start, "artifacts": artifacts}


def catalogue_text(report: Path) -> str:
    """Return the catalogue of a report's run as JSON, the same for the same artifacts."""
    return json.dumps(catalogue(report), sort_keys=True, indent=1, ensure_ascii=False) + "\n"


def _manifests(results: Path, start: str) -> dict[str, dict[str, Any]]:
    """Return the manifests of an artifact and of all that it is made from, children first."""
    order: list[str] = []
    manifests: dict[str, dict[str, Any]] = {}
    seen: set[str] = set()
    # Depth first, without recursion: True where all parents of a path were visited.
    stack = [(start, False)]
    while stack:
        path, visited = stack.pop()
        if visited:
            order.append(path)
        elif path not in seen:
            seen.add(path)
            manifest = read_manifest(results / path)
            if manifest is not None:
                manifests[path] = manifest
                stack.append((path, True))
                stack += [(parent, False) for _, parent in _inputs(manifest)]
    return {path: manifests[path] for path in reversed(order)}


def _inputs(manifest: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for role, paths in parents_of(manifest).items():
        yield from ((role, path) for path in paths)


def _facts(manifests: Mapping[str, Mapping[str, Any]], start: str) -> dict[str, Facts]:
    """Return what is known of each artifact."""
    reported = _reported(manifests.get(start, {}))
    candidates: dict[str, dict[str, set[Any]]] = {path: {} for path in manifests}
    facts: dict[str, Facts] = {}
    # From those that use an artifact, who come before it.
    for path, manifest in manifests.items():
        facts[path] = reported.get(path) or _agreed(candidates[path]) | _settings_facts(manifest)
        stage = path.partition("/")[0]
        for role, parent in _inputs(manifest):
            key = _FROM_USER.get((stage, role)) or _FROM_USER.get(("", role))
            if key in facts[path] and parent in candidates:
                candidates[parent].setdefault(key, set()).add(facts[path][key])
    # From what an artifact is made from, the first makers first.
    for path in reversed(list(manifests)):
        inherited: dict[str, set[Any]] = {}
        for parent in _single_inputs(manifests[path]):
            for key, value in facts.get(parent, {}).items():
                inherited.setdefault(key, set()).add(value)
        # The report says all of its own inputs but the layer.
        wanted = ("layer",) if path in reported else _KEYS if path != start else ()
        agreed = {key: value for key, value in _agreed(inherited).items() if key in wanted}
        facts[path] = agreed | facts[path]
    return facts


def _agreed(values: Mapping[str, set[Any]]) -> Facts:
    return {key: next(iter(options)) for key, options in values.items() if len(options) == 1}


def _single_inputs(manifest: Mapping[str, Any]) -> list[str]:
    """Return the inputs of roles that have one artifact. A list of SAEs gives no layer."""
    listed = manifest.get(PARENTS) or {}
    return [path for role, path in _inputs(manifest) if not isinstance(listed[role], list)]


def _settings_facts(manifest: Mapping[str, Any]) -> Facts:
    """Return what an artifact's own settings say. Other seeds than a projector's draw samples."""
    settings = manifest.get("settings")
    if not isinstance(settings, dict):
        return {}
    keys = ("sae_weight", "seed", "layer") if "sae_weight" in settings else ("layer",)
    return {key: settings[key] for key in keys if isinstance(settings.get(key), int | float)}


def _reported(report: Mapping[str, Any]) -> dict[str, Facts]:
    """Return what the report's settings say of its inputs."""
    parents, settings = parents_of(report), report.get("settings", {})
    return {
        path: {key: entry[key] for key in _KEYS if entry.get(key) is not None}
        for role, name in _LISTS.items()
        for path, entry in zip(parents.get(role, ()), settings.get(name, ()), strict=False)
    }
