"""Why an artifact would be made anew: the settings, sources, inputs or files that changed.

What a config asks for now (its plan) is held against what finished artifacts say that they were
made from (their manifests). Nothing is run and nothing is written.
"""

from __future__ import annotations

import glob
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from vista.engine.artifacts import (
    MANIFEST,
    MEMO,
    Artifact,
    canonical_json,
    damaged,
    digest_file,
    open_artifact,
    package_versions,
)
from vista.engine.code import is_fetch, source_digests, stage_code, third_party
from vista.engine.locks import lock_file, work_folder, writer
from vista.engine.node import Node
from vista.engine.plan import Plan, load_plan
from vista.engine.stages import stages
from vista.errors import UserError

# What changed, and for which artifact.
Cause = tuple[str, Node]

_NOT_MADE = "not made yet either"
UP_TO_DATE, REBUILT, BAD_INPUT = 0, 1, 2
_MOST_LINES, _MOST_NAMED, _MOST_TEXT = 20, 3, 60
_ID_DIGITS = 10


def explain(paths: Sequence[str], config: Path) -> tuple[str, int]:
    """Return what there is to say about artifacts, and the exit status.

    Args:
        paths: Folders of artifacts, finished or planned, or globs of them.
        config: The config that says what is asked for.

    Returns:
        The text, and 0 where all are up to date, 1 where one would be made (anew), 2 where the
        config asks for nothing in the place of one.

    Raises:
        UserError: The config is wrong, or a path is neither there nor planned.
    """
    plan = load_plan(config)
    folders = _folders(paths, plan)
    explainers = {root: _Explainer(plan, root) for root in {_results(each) for each in folders}}
    said = [_explained(path, explainers[_results(path)], config) for path in folders]
    return "\n".join(line for lines, _ in said for line in lines), max(each for _, each in said)


def _results(artifact: Path) -> Path:
    return artifact.absolute().parents[1]


def _folders(paths: Iterable[str], plan: Plan) -> list[Path]:
    """Return the artifacts that paths and globs mean, on the disk or in the plan."""
    planned = [Path(manifest).parent for manifest in plan.manifests()]
    found: dict[Path, Path] = {}
    for given in paths:
        path = Path(given)
        path = path.parent if path.name == MANIFEST else path
        there = [Path(each) for each in glob.glob(str(path)) if Path(each).is_dir()]
        hits = [each for each in there if each.absolute().parent.name in stages()]
        hits += [each for each in planned if each.absolute().match(str(path.absolute()))]
        if not hits:
            raise UserError(
                f"{given} is no artifact, finished or planned: expected RESULTS/STAGE/NAME-ID as "
                "`vista plan CONFIG --list` gives it, or a glob of such in quotes."
            )
        found = {each.absolute(): each for each in sorted(hits)} | found
    return list(found.values())


class _Explainer:
    """Holds the nodes of a plan against the artifacts in a results folder."""

    def __init__(self, plan: Plan, results: Path) -> None:
        self.plan = plan
        self.nodes = plan.nodes
        self.results = results
        self._finished: dict[str, dict[str, Artifact]] = {}

    def finished(self, stage: str) -> Mapping[str, Artifact]:
        """Return all readable artifacts of a stage by folder."""
        if stage not in self._finished:
            self._finished[stage] = {}
            for manifest in sorted((self.results / stage).glob(f"*/{MANIFEST}")):
                try:
                    self._finished[stage][manifest.parent.name] = open_artifact(manifest.parent)
                except UserError:
                    continue  # told where it is itself the one in question
        return self._finished[stage]

    def made(self, node: Node) -> Artifact | None:
        return self.finished(node.stage).get(node.folder)

    def causes(self, node: Node, seen: set[str] | None = None) -> Iterator[Cause]:
        """Yield why a node, or something that it is made from, would be made (anew)."""
        seen = set() if seen is None else seen
        if node.path in seen:
            return
        seen.add(node.path)
        yield from self._own(node)
        for parent in node.parents():
            yield from self.causes(parent, seen)

    def _own(self, node: Node) -> Iterator[Cause]:
        folder = self.results / node.path
        artifact = self.made(node)
        if artifact is not None:
            yield from ((text, node) for text in size_damage(artifact))
            yield from ((text, node) for text in _edits(artifact, node))
            for role, digest, parent in _pairs(artifact, node):
                made = self.made(parent)
                if made is not None and made.digest != digest:
                    yield f"input {role} was made anew since, with other content", node
        elif (folder / MANIFEST).exists():
            try:
                open_artifact(folder)
            except UserError as error:
                yield str(error), node
        elif (folder / MEMO).exists():
            yield "its last job did not end", node
        elif (before := self.closest(node)) is not None:
            yield from self.differences(before, node)
        else:
            yield _NOT_MADE, node

    def closest(self, node: Node) -> Artifact | None:
        """Return the artifact of the same stage and name that differs least from a node."""
        others = [
            artifact
            for folder, artifact in self.finished(node.stage).items()
            if name_of(folder) == node.name
        ]
        return min(others, key=lambda each: len(set(self.differences(each, node))), default=None)

    def differences(
        self, before: Artifact, node: Node, seen: set[tuple[Path, str]] | None = None
    ) -> Iterator[Cause]:
        """Yield in what a node differs from an artifact of other settings, inputs included."""
        seen = set() if seen is None else seen
        if (before.path, node.path) in seen:
            return
        seen.add((before.path, node.path))
        for text in _settings_changes(before.settings, node.settings):
            yield text, node
        for text in (*_counts(before, node), *_file_changes(before, node)):
            yield text, node
        for role, digest, parent in _pairs(before, node):
            made = self.made(parent)
            if made is not None and made.digest == digest:
                continue
            old = next(
                (each for each in self.finished(parent.stage).values() if each.digest == digest),
                None,
            )
            if old is not None:
                yield from self.differences(old, parent, seen)
            elif made is not None:
                yield f"input {role} is now {parent.path}, with other content", node

    def work(self, node: Node) -> Iterator[str]:
        """Yield what is under way of an artifact, or was interrupted, and which parts are done."""
        work = work_folder(self.results, node.stage, node.folder)
        process = writer(lock_file(work))
        if process is not None:
            yield f"  process {process} is making it now"
        elif work.is_dir():
            yield f"  interrupted work is in {work}: goes on if settings, inputs and code still fit"
        else:
            return
        marks = self.plan.parts(node.folder, lambda _: None)
        names = [Path(mark).name for mark in marks]
        left = [name for name in names if not work.with_name(name).exists()]
        if names:
            yield f"  {len(names) - len(left)} of {len(names)} parts are done"
        logs = [self.results / "logs" / node.stage / f"{name}.log" for name in left]
        for log in [each for each in logs if each.exists()][:_MOST_NAMED]:
            yield f"  log of a part that is not: {log}"


def name_of(folder: str) -> str:
    """Return the readable name in the name of an artifact's folder."""
    return folder[: -_ID_DIGITS - 1]


def _explained(path: Path, explainer: _Explainer, config: Path) -> tuple[list[str], int]:
    stage, folder = path.absolute().parts[-2:]
    node = explainer.nodes.get((stage, folder))
    if node is not None:
        causes = list(explainer.causes(node))
        status = REBUILT if causes or explainer.made(node) is None else UP_TO_DATE
        lines = [f"{path}: {_state(node, causes, explainer)}"]
    else:
        same = [
            n for n in explainer.nodes.values() if (n.stage, n.name) == (stage, name_of(folder))
        ]
        if not same:
            text = f"{config} asks for no {stage} {name_of(folder)}; name its config by --config"
            return [f"{path}: {text}"], BAD_INPUT
        before = open_artifact(path, stage)
        node = min(same, key=lambda each: len(set(explainer.differences(before, each))))
        todo = list(explainer.causes(node))
        causes = [*explainer.differences(before, node), *todo]
        status = REBUILT if todo or explainer.made(node) is None else UP_TO_DATE
        state = "to be made" if status else "up to date"
        lines = [f"{path}: not asked for by {config}; in its place {node.path}: {state}"]
    lines += _grouped(causes, node)
    lines += explainer.work(node)
    artifact = explainer.made(node)
    if artifact is not None and not is_fetch(stage):
        lines += _package_changes(artifact, node)
    return lines, status


def _state(node: Node, causes: Sequence[Cause], explainer: _Explainer) -> str:
    if explainer.made(node) is None and not (explainer.results / node.path / MANIFEST).exists():
        before = explainer.closest(node)
        return "not made yet" if before is None else f"not made yet, unlike {before.path.name}"
    if not causes:
        return "up to date"
    if any(where is node for _, where in causes):
        return "would be rebuilt"
    return "would be rebuilt, unless its inputs come out the same"


def _grouped(causes: Iterable[Cause], node: Node) -> list[str]:
    """Return a line a cause, with the artifacts that it concerns unless that is `node` alone."""
    where: dict[str, dict[str, None]] = {}
    for text, concerned in causes:
        if (text, concerned) == (_NOT_MADE, node):
            continue  # as the headline says
        where.setdefault(text, {})[concerned.path] = None
    lines = []
    for text, paths in where.items():
        names = ["itself" if path == node.path else path for path in paths]
        more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
        named = "" if names == ["itself"] else f" ({', '.join(names[:_MOST_NAMED])}{more})"
        lines.append(f"  {text}{named}")
    if len(lines) > _MOST_LINES:
        lines[_MOST_LINES:] = [f"  and {len(lines) - _MOST_LINES} more causes"]
    return lines


def _pairs(artifact: Artifact, node: Node) -> Iterator[tuple[str, str, Node]]:
    """Yield role, recorded digest and node of each input, where the role has as many as before."""
    for role, found in node.inputs.items():
        parents, digests = _listed(found), _listed(artifact.inputs.get(role, ()))
        if len(parents) == len(digests):
            yield from ((role, digest, each) for digest, each in zip(digests, parents, strict=True))


def _counts(artifact: Artifact, node: Node) -> Iterator[str]:
    """Yield the roles of which there are more or fewer inputs than an artifact had."""
    roles = artifact.inputs.keys() | node.inputs.keys()
    for role in sorted(roles - {"files"}):
        then, now = (len(_listed(each.get(role, ()))) for each in (artifact.inputs, node.inputs))
        if then != now:
            yield f"inputs {role}: {then} -> {now}"


def _listed(found: Any) -> Sequence[Any]:
    return found if isinstance(found, list | tuple) else (found,)


def size_damage(artifact: Artifact) -> Iterator[str]:
    """Yield one sentence for the first file that is missing or has another size."""
    for name, expected in artifact.checksums.items():
        path = artifact.path / name
        if not path.is_file() or path.stat().st_size != expected["bytes"]:
            yield str(damaged(path, "it is missing or has another size", artifact.path))
            return


def _edits(artifact: Artifact, node: Node) -> Iterator[str]:
    """Yield the sources and the user's files that changed since an artifact was made."""
    yield from code_changes(artifact.manifest["code"], code_now(node))
    yield from _file_changes(artifact, node)


def code_now(node: Node) -> dict[str, str]:
    """Return the digest of each definition that a node's job would run."""
    return {} if is_fetch(node.stage) else source_digests(stage_code(node.stage, node.modules))


def packages_now(node: Node) -> dict[str, str]:
    """Return the versions of the packages that a node's job would use."""
    if is_fetch(node.stage):
        return {}
    return _packages(third_party(stage_code(node.stage, node.modules)))


def code_changes(then: Mapping[str, str], now: Mapping[str, str]) -> Iterator[str]:
    """Yield a text for each definition whose digest differs."""
    for name in sorted(then.keys() | now.keys()):
        if name not in now:
            yield f"source {name} is used no longer"
        elif then.get(name) != now[name]:
            yield f"source {name} {'changed' if name in then else 'is new'}"


def _file_changes(artifact: Artifact, node: Node) -> Iterator[str]:
    for name, digest in zip(node.files, artifact.inputs.get("files", ()), strict=False):
        if not Path(name).is_file():
            yield f"file {name} is not there"
        elif digest_file(Path(name)) != digest:
            yield f"file {name} changed"


def _settings_changes(
    then: Mapping[str, Any], now: Mapping[str, Any], within: str = ""
) -> Iterator[str]:
    """Yield `key: old -> new` for each setting that differs, keys within keys by dots."""
    for key in sorted(then.keys() | now.keys()):
        old, new = then.get(key), now.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            yield from _settings_changes(old, new, f"{within}{key}.")
        elif old != new or (key in then) != (key in now):
            yield f"{within}{key}: {_change(old, new)}"


def _change(old: Any, new: Any) -> str:
    texts = [canonical_json(each) for each in (old, new)]
    if max(map(len, texts)) <= _MOST_TEXT:
        return " -> ".join(texts)
    if isinstance(old, list) and isinstance(new, list):
        added = sum(each not in old for each in new)
        removed = sum(each not in new for each in old)
        return f"{len(old)} -> {len(new)} entries, {added} of them new, {removed} gone"
    return " -> ".join(f"{text[:_MOST_TEXT]}..." for text in texts)


def _package_changes(artifact: Artifact, node: Node) -> Iterator[str]:
    then, now = artifact.manifest["packages"], packages_now(node)
    changed = [f"{name} {then[name]} -> {now[name]}" for name in sorted(then.keys() & now.keys())
               if then[name] != now[name]]  # fmt: skip
    if changed:
        yield f"  note: {', '.join(changed)}; a package alone is no reason to rebuild"


_packages = cache(package_versions)
