"""The catalogue: what a run has made, by stage and model, so that tools need not search folders.

Its best source is the report, which has all of a run behind it: its settings say of which encoder,
LLM, SAE weight, seed and method each of its inputs is, and manifests say what is made from what. An
artifact between them has what its inputs have (directions the encoder of their projector), and a
model what uses it has (an SAE the LLM of its check). Names of artifacts, which the plan makes
(`vista.engine.node`), say of which point and control one is, and while a run is half done the rest.

Format "vista catalogue 2" adds to format 1: `live` and `notes`, and of each artifact its `digest`.
Values of a wrong type, which only a damaged manifest has, are left out.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from vista.config.metric import declared_metrics, plugin_metric_names
from vista.engine.lineage import PARENTS, parents_of, read_manifest

CATALOGUE = "catalogue.json"
FORMAT = "vista catalogue 2"
# Characters of a manifest's digest that stand in the catalogue.
DIGEST = 12
_TEXTS = ("encoder", "llm", "control", "method")
_INTEGERS = ("seed", "layer")
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
# Names of artifacts, of which a part holds no "-": ENCODER-LLM-wWEIGHT-sSEED, and more parts.
_PART = "[A-Za-z0-9][A-Za-z0-9_.]*"
_POINT = re.compile(
    rf"({_PART})-({_PART})-w([0-9.]{{1,20}}(?:e[+-]?[0-9]{{1,3}})?)-s([0-9]{{1,15}})((?:-{_PART})*)"
)
_LAYER = re.compile(rf"({_PART})-l([0-9]{{1,6}})")
_ENCODER = re.compile(rf"({_PART})(?:-{_PART})*")
# Parts after a point's seed that name no control.
_NO_CONTROL = re.compile(r"train|validation|test|stage[0-9]+")
_OF_LAYERS = frozenset(
    (
        *("fetch_sae", "train_sae", "import_sae", "check_sae", "fetch_labels"),
        *("label_latents", "import_labels", "naming"),
    )
)
_OF_ENCODERS = frozenset(("features", "combine_features"))
# ENCODER-METHOD: the method is a vision SAE's, as in the long table.
_VISION_SAE = re.compile(rf"({_PART})-({_PART})")
_OF_VISION_SAES = frozenset(
    (
        *("train_vision_sae", "import_vision_sae", "check_vision_sae", "label_vision_latents"),
        *("train_guided_sae", "label_guided_latents"),
    )
)
# Stages whose names have a method after the point.
_OF_METHODS = frozenset(
    ("directions", "edit_captions", "intervention", "label_by_steering", "vision_labels")
)
_LONGEST = 200  # characters of a name
_LARGEST = 2**53  # integers that a page can hold
_ROLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}")

Facts = dict[str, Any]
Manifest = Mapping[str, Any]


def catalogue(report: Path) -> dict[str, Any]:
    """Return the catalogue of the run that a report is of.

    Args:
        report: Folder of the finished report, RESULTS/report/NAME-ID. What it is made from and is
            not there, or cannot be read, is left out, with what that is made from.

    Returns:
        As `catalogue_of`.
    """
    start = f"{report.parent.name}/{report.name}"
    results = report.parents[1]
    manifests = _children_first([start], lambda path: read_manifest(results / path))
    return catalogue_of(manifests, [start])


def catalogue_text(report: Path) -> str:
    """Return the catalogue of a report's run as JSON, the same for the same artifacts."""
    return json.dumps(catalogue(report), sort_keys=True, indent=1, ensure_ascii=False) + "\n"


def catalogue_of(
    manifests: Mapping[str, Manifest],
    reports: Sequence[str],
    *,
    live: bool = False,
    notes: Sequence[str] = (),
) -> dict[str, Any]:
    """Return the catalogue of finished artifacts.

    Args:
        manifests: Their manifests, by folder: STAGE/NAME-ID below the results folder.
        reports: Folders of the reports among them, the last one first; what it says counts most.
        live: Whether a server answers for artifacts as they are finished.
        notes: What is left out, and why.

    Returns:
        `format`; `run`, the last report's name, and `report`, its folder, null where there is none;
        `live`; `notes`; and for each of `artifacts`, `folder`. An artifact also has `stage`,
        `name`, `digest` (of all its bytes), `parents` (the folders of its inputs by role), and of
        encoder, llm, sae_weight, seed, control, method and layer those that apply; `metric` is true
        for one with rows of the long table, `unreported` for one that the last report is not made
        from, if there is a report.
    """
    ordered = _children_first([*reports, *sorted(manifests)], manifests.get)
    behind = [set(_children_first([report], manifests.get)) for report in reports]
    facts = _facts(ordered, reports, set().union(*behind))
    artifacts = []
    metrics = {*declared_metrics(), *plugin_metric_names()}
    for path, manifest in sorted(ordered.items()):
        stage, _, folder = path.partition("/")
        entry = {
            "folder": path,
            "stage": stage,
            "name": folder.rpartition("-")[0],
            "parents": _parents(manifest),
            **{key: facts[path][key] for key in _KEYS if key in facts[path]},
        }
        if stage in metrics:
            entry["metric"] = True
        digest = manifest.get("digest")
        if isinstance(digest, str) and re.fullmatch("[0-9a-f]{64}", digest):
            entry["digest"] = digest[:DIGEST]
        if behind and path not in behind[0]:
            entry["unreported"] = True
        artifacts.append(entry)
    report = reports[0] if reports else None
    name = _settings(ordered.get(report or "", {})).get("name")
    return {
        "format": FORMAT,
        "run": name if _is_name(name) else None,
        "report": report,
        "live": live,
        "notes": list(notes),
        "artifacts": artifacts,
    }


def _settings(manifest: Manifest) -> Mapping[str, Any]:
    settings = manifest.get("settings")
    return settings if isinstance(settings, dict) else {}


def _parents(manifest: Manifest) -> dict[str, list[str]]:
    return {role: paths for role, paths in parents_of(manifest).items() if _ROLE.fullmatch(role)}


def _children_first(
    starts: Iterable[str], read: Callable[[str], Manifest | None]
) -> dict[str, Manifest]:
    """Return the manifests of artifacts and of all that they are made from, children first."""
    order: list[str] = []
    manifests: dict[str, Manifest] = {}
    seen: set[str] = set()
    # Depth first, without recursion: True where all parents of a path were visited.
    stack = [(start, False) for start in starts][::-1]
    while stack:
        path, visited = stack.pop()
        if visited:
            order.append(path)
        elif path not in seen:
            seen.add(path)
            manifest = read(path)
            if manifest is not None:
                manifests[path] = manifest
                stack.append((path, True))
                stack += [(parent, False) for _, parent in _inputs(manifest)]
    return {path: manifests[path] for path in reversed(order)}


def _inputs(manifest: Manifest) -> Iterator[tuple[str, str]]:
    for role, paths in _parents(manifest).items():
        yield from ((role, path) for path in paths)


def _facts(
    manifests: Mapping[str, Manifest], reports: Sequence[str], reported: set[str]
) -> dict[str, Facts]:
    """Return what is known of each artifact; `reported` are those that a report is made from."""
    known: dict[str, Facts] = {}
    for report in reversed(reports):
        known |= _reported(manifests.get(report, {}))
    candidates: dict[str, dict[str, set[Any]]] = {path: {} for path in manifests}
    facts: dict[str, Facts] = {}
    # From those that use an artifact, who come before it.
    for path, manifest in manifests.items():
        named = named_facts(path)
        if path in reported and not named.keys() & {"sae_weight", "method"}:
            # Those that use it say more: entries of one model share what reads it.
            named = {}
        facts[path] = known.get(path) or {
            **_agreed(candidates[path]),
            **_settings_facts(manifest),
            **named,
        }
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
        # A report says all of its own inputs but the layer.
        wanted = ("layer",) if path in known else _KEYS if path not in reports else ()
        agreed = {key: value for key, value in _agreed(inherited).items() if key in wanted}
        facts[path] = agreed | facts[path]
    return facts


def _agreed(values: Mapping[str, set[Any]]) -> Facts:
    return {key: next(iter(options)) for key, options in values.items() if len(options) == 1}


def _single_inputs(manifest: Manifest) -> list[str]:
    """Return the inputs of roles that have one artifact. A list of SAEs gives no layer."""
    listed = manifest.get(PARENTS) or {}
    return [path for role, path in _inputs(manifest) if not isinstance(listed[role], list)]


def _settings_facts(manifest: Manifest) -> Facts:
    """Return what an artifact's own settings say. Other seeds than a projector's draw samples."""
    settings = _settings(manifest)
    keys = ("sae_weight", "seed", "layer") if "sae_weight" in settings else ("layer",)
    return _checked({key: settings.get(key) for key in keys})


def named_facts(path: str) -> Facts:
    """Return what the name of an artifact, STAGE/NAME-ID, says of it."""
    stage, _, folder = path.partition("/")
    name = folder.rpartition("-")[0]
    if match := _POINT.fullmatch(name):
        encoder, llm, weight, seed, more = match.groups()
        try:
            facts: Facts = {"encoder": encoder, "llm": llm, "sae_weight": float(weight)}
        except ValueError:  # 1.2.3
            return {}
        rest = more.split("-")[1:]
        if rest and not _NO_CONTROL.fullmatch(rest[0]):
            facts["method" if stage in _OF_METHODS else "control"] = rest[0]
        return _checked(facts | {"seed": int(seed)})
    if stage in _OF_LAYERS and (match := _LAYER.fullmatch(name)):
        return _checked({"llm": match[1], "layer": int(match[2])})
    if stage in _OF_VISION_SAES and (match := _VISION_SAE.fullmatch(name)):
        return _checked({"method": match[2]})
    if stage in _OF_ENCODERS and (match := _ENCODER.fullmatch(name)):
        return _checked({"encoder": match[1]})
    return {}


def _reported(report: Manifest) -> dict[str, Facts]:
    """Return what the report's settings say of its inputs."""
    parents, settings = _parents(report), _settings(report)
    reported: dict[str, Facts] = {}
    for role, name in _LISTS.items():
        entries = settings.get(name)
        for path, entry in zip(
            parents.get(role, ()), entries if isinstance(entries, list) else (), strict=False
        ):
            reported[path] = _checked(entry) if isinstance(entry, dict) else {}
    return reported


def _checked(facts: Mapping[str, Any]) -> Facts:
    """Return the facts among some values, in order, without those of a wrong type."""
    kept = {}
    for key in _KEYS:
        value = facts.get(key)
        if key in _TEXTS:
            good = _is_name(value)
        elif isinstance(value, bool) or not isinstance(value, int | float):
            good = False
        elif key in _INTEGERS:
            good = isinstance(value, int) and abs(value) <= _LARGEST
        else:
            good = abs(value) <= _LARGEST and math.isfinite(value)
        if good:
            kept[key] = value
    return kept


def _is_name(value: Any) -> bool:
    """Return whether a value is a text that names something: short, of characters to be shown."""
    return isinstance(value, str) and 0 < len(value) <= _LONGEST and value.isprintable()
