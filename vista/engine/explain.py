"""Why an artifact would be made again: the settings, code, inputs or files that changed.

Compares what a config asks for (its plan) with what finished artifacts were made from (their
manifests). Runs nothing and writes nothing.
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
    open_artifact,
    package_versions,
)
from vista.engine.code import is_fetch, source_digests, stage_code, third_party
from vista.engine.locks import lock_file, work_folder, writer
from vista.engine.node import Node
from vista.engine.plan import Plan, load_plan
from vista.engine.stages import stages
from vista.engine.user_files import digest_user_file
from vista.errors import UserError

# A change, and the artifact that it concerns.
Cause = tuple[str, Node]

_NOT_MADE = "not made yet either"
UP_TO_DATE, REBUILT, BAD_INPUT = 0, 1, 2
_MOST_LINES, _MOST_NAMED, _MOST_TEXT = 20, 3, 60
_ID_DIGITS = 10


def explain(paths: Sequence[str], config: Path) -> tuple[str, int]:
    """Return an explanation of the state of artifacts, and the exit status.

    Args:
        paths: Folders of artifacts, finished or planned, or globs of them.
        config: The config that asks for them.

    Returns:
        The text, and 0 if all are up to date, 1 if one would be made or made again, 2 if the config
        asks for nothing in the place of one.

    Raises:
        UserError: The config is wrong, or a path is neither there nor planned.
    """
    plan = load_plan(config)
    folders = _folders(paths, plan)
    explainers = {root: _Explainer(plan, root) for root in set(map(_results, folders))}
    answers = [_explained(path, explainers[_results(path)], config) for path in folders]
    text = "\n".join(line for lines, _ in answers for line in lines)
    return text, max(status for _, status in answers)


def _results(artifact: Path) -> Path:
    return artifact.absolute().parents[1]


def _folders(paths: Iterable[str], plan: Plan) -> list[Path]:
    """Return the artifacts, on the disk or in the plan, that paths and globs match."""
    planned = [Path(manifest).parent for manifest in plan.manifests()]
    folders: dict[Path, Path] = {}
    for text in paths:
        path = Path(text)
        path = path.parent if path.name == MANIFEST else path
        present = [Path(match) for match in glob.glob(str(path)) if Path(match).is_dir()]
        hits = [folder for folder in present if folder.absolute().parent.name in stages()]
        hits += [folder for folder in planned if folder.absolute().match(str(path.absolute()))]
        if not hits:
            raise UserError(
                f"{text} is no artifact, finished or planned: expected RESULTS/STAGE/NAME-ID as "
                "`vista plan CONFIG --list` gives it, or a glob of such in quotes."
            )
        folders = {folder.absolute(): folder for folder in sorted(hits)} | folders
    return list(folders.values())


class _Explainer:
    """Compares the nodes of a plan with the artifacts in a results folder."""

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
                    continue  # reported when this artifact itself is explained
        return self._finished[stage]

    def made(self, node: Node) -> Artifact | None:
        """Return the finished artifact of a node, if there is one."""
        return self.finished(node.stage).get(node.folder)

    def causes(self, node: Node, seen: set[str] | None = None) -> Iterator[Cause]:
        """Yield the causes why a node, or an ancestor of it, would be made or made again."""
        seen = set() if seen is None else seen
        if node.path in seen:
            return
        seen.add(node.path)
        yield from self._causes_in(node)
        for parent in node.parents():
            yield from self.causes(parent, seen)

    def _causes_in(self, node: Node) -> Iterator[Cause]:
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
        return min(
            others, key=lambda artifact: len(set(self.differences(artifact, node))), default=None
        )

    def differences(
        self, before: Artifact, node: Node, seen: set[tuple[Path, str]] | None = None
    ) -> Iterator[Cause]:
        """Yield the differences, in settings and inputs, between an artifact and a node."""
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
            candidates = self.finished(parent.stage).values()
            old = next((artifact for artifact in candidates if artifact.digest == digest), None)
            if old is not None:
                yield from self.differences(old, parent, seen)
            elif made is not None:
                yield f"input {role} is now {parent.path}, with other content", node

    def work(self, node: Node) -> Iterator[str]:
        """Yield lines about unfinished work on an artifact, and which of its parts are done."""
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
        for log in [log for log in logs if log.exists()][:_MOST_NAMED]:
            yield f"  log of a part that is not: {log}"


def name_of(folder: str) -> str:
    """Return the readable part of an artifact's folder name."""
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
        node = min(same, key=lambda other: len(set(explainer.differences(before, other))))
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
    if any(concerned is node for _, concerned in causes):
        return "would be rebuilt"
    return "would be rebuilt, unless its inputs come out the same"


def _grouped(causes: Iterable[Cause], node: Node) -> list[str]:
    """Return a line for each cause, with the artifacts that it concerns if not `node` alone."""
    paths_of: dict[str, dict[str, None]] = {}
    for text, concerned in causes:
        if (text, concerned) == (_NOT_MADE, node):
            continue  # as the headline says
        paths_of.setdefault(text, {})[concerned.path] = None
    lines = []
    for text, paths in paths_of.items():
        names = ["itself" if path == node.path else path for path in paths]
        more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
        named = "" if names == ["itself"] else f" ({', '.join(names[:_MOST_NAMED])}{more})"
        lines.append(f"  {text}{named}")
    if len(lines) > _MOST_LINES:
        lines[_MOST_LINES:] = [f"  and {len(lines) - _MOST_LINES} more causes"]
    return lines


def _pairs(artifact: Artifact, node: Node) -> Iterator[tuple[str, str, Node]]:
    """Yield role, recorded digest and node of each input whose role has as many as before."""
    for role, source in node.inputs.items():
        parents, digests = _listed(source), _listed(artifact.inputs.get(role, ()))
        if len(parents) == len(digests):
            for digest, parent in zip(digests, parents, strict=True):
                yield role, digest, parent


def _counts(artifact: Artifact, node: Node) -> Iterator[str]:
    """Yield the roles that have more or fewer inputs than before."""
    roles = artifact.inputs.keys() | node.inputs.keys()
    for role in sorted(roles - {"files"}):
        then, now = (len(_listed(by.get(role, ()))) for by in (artifact.inputs, node.inputs))
        if then != now:
            yield f"inputs {role}: {then} -> {now}"


def _listed(source: Any) -> Sequence[Any]:
    return source if isinstance(source, list | tuple) else (source,)


def size_damage(artifact: Artifact) -> Iterator[str]:
    """Yield a message about the first file that is missing or has another size, if any."""
    for name, expected in artifact.checksums.items():
        path = artifact.path / name
        if not path.is_file() or path.stat().st_size != expected["bytes"]:
            yield str(damaged(path, "it is missing or has another size", artifact.path))
            return


def _edits(artifact: Artifact, node: Node) -> Iterator[str]:
    """Yield the definitions and the user's files that changed since an artifact was made."""
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
    """Yield a line for each definition whose digest differs."""
    for name in sorted(then.keys() | now.keys()):
        if name not in now:
            yield f"source {name} is used no longer"
        elif then.get(name) != now[name]:
            yield f"source {name} {'changed' if name in then else 'is new'}"


def _file_changes(artifact: Artifact, node: Node) -> Iterator[str]:
    for name, digest in zip(node.files, artifact.inputs.get("files", ()), strict=False):
        now, what = digest_user_file(Path(name)), "folder" if Path(name).is_dir() else "file"
        if not now:
            yield f"{what} {name} is not there"
        elif now != digest:
            yield f"{what} {name} changed"


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
    texts = [canonical_json(value) for value in (old, new)]
    if max(map(len, texts)) <= _MOST_TEXT:
        return " -> ".join(texts)
    if isinstance(old, list) and isinstance(new, list):
        added = sum(entry not in old for entry in new)
        removed = sum(entry not in new for entry in old)
        return f"{len(old)} -> {len(new)} entries, {added} of them new, {removed} gone"
    return " -> ".join(f"{text[:_MOST_TEXT]}..." for text in texts)


def _package_changes(artifact: Artifact, node: Node) -> Iterator[str]:
    then, now = artifact.manifest["packages"], packages_now(node)
    changed = [f"{name} {then[name]} -> {now[name]}" for name in sorted(then.keys() & now.keys())
               if then[name] != now[name]]  # fmt: skip
    if changed:
        yield f"  note: {', '.join(changed)}; a package alone is no reason to rebuild"


_packages = cache(package_versions)
