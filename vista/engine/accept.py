"""Accepting finished artifacts whose code alone has changed.

After an edit that its author knows to be neutral (a rename, a faster path that was tested to be
equal) the code digest of artifacts differs, and Snakemake would make them again. An artifact can be
accepted if settings, input digests and the user's files are still those that it was made from, its
files are undamaged, and its inputs are up to date or accepted. Its manifest gets the new code
digests and keeps the former ones (`accepted`).

Manifest and memo must be equal, and two files cannot change at once. So the manifest is removed,
the memo is replaced, and the manifest is written. In between, the artifact looks like one whose job
did not end: the memo restores it, without a rebuild, for the code that the memo names.
"""

from __future__ import annotations

import filecmp
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from vista.engine.artifacts import (
    MANIFEST,
    MEMO,
    Artifact,
    canonical_json,
    input_digests,
    manifest_text,
    open_artifact,
    remembered,
)
from vista.engine.code import joint_digest
from vista.engine.disk import force_to_disk, write_synced
from vista.engine.explain import code_changes, code_now, packages_now, size_damage
from vista.engine.lineage import PARENTS
from vista.engine.locks import (
    lock_file,
    locked_if_free,
    provenance_file,
    refuse_while_running,
    work_folder,
    writer,
)
from vista.engine.node import Node
from vista.engine.plan import Plan, load_plan
from vista.engine.shipped import shipped, snakefile_in
from vista.errors import UserError

# The manifest's key for the former code digests of an accepted artifact, oldest first.
ACCEPTED = "accepted"
_SUMMARY = ("summary.csv", "summary.parquet", "summary.md")
_MOST_NAMED = 3


class State(Enum):
    """The state of an artifact compared with the present code."""

    ABSENT = "not made yet"
    UP_TO_DATE = "up to date"
    ACCEPTABLE = "acceptable"
    REFUSED = "refused"
    BEHIND = "made from one that is not there, or refused"


@dataclass(frozen=True)
class Finding:
    """A node of a plan with its state; its artifact if that is up to date or acceptable, or the
    reason why it is refused."""

    node: Node
    state: State
    artifact: Artifact | None = None
    reason: str = ""

    @property
    def good(self) -> bool:
        """Whether the artifact is up to date, or would be once accepted."""
        return self.state in (State.UP_TO_DATE, State.ACCEPTABLE)


def accept(configs: Sequence[Path], *, adopt: bool) -> Iterator[str]:
    """List the artifacts whose code alone has changed, and accept them if `adopt`.

    With `adopt`, Snakemake's metadata are updated as well, so that it reruns none of them.

    Args:
        configs: The configs whose artifacts are reviewed.
        adopt: Whether to accept them.

    Yields:
        The lines of a report.

    Raises:
        UserError: A config is wrong; or, with `adopt`, a workflow runs.
    """
    plans = {config: load_plan(config) for config in configs}
    snakefile = _snakefile() if adopt else None
    nodes: dict[str, dict[tuple[str, str], Node]] = {}
    for plan in plans.values():
        nodes[plan.results] = nodes.get(plan.results, {}) | plan.nodes
    if adopt:
        for results in nodes:
            refuse_while_running(Path(results), "nothing was accepted")
    reviews = {results: Review(Path(results)) for results in nodes}
    for results, review in reviews.items():
        yield from _accepted(review, nodes[results].values(), adopt)
    if snakefile is not None:
        for config, plan in plans.items():
            targets = up_to_date_targets(plan, reviews[plan.results])
            if targets:
                record_as_done(snakefile, config, targets)


def _accepted(review: Review, nodes: Any, adopt: bool) -> Iterator[str]:
    counts = dict.fromkeys(State, 0)
    # Parents come before their children.
    for node in nodes:
        finding = review.look(node)
        counts[finding.state] += 1
        if finding.state is State.ACCEPTABLE:
            changes = _changes(finding)
            if adopt:
                finding = review.adopt(finding)
                if not finding.good:
                    counts[State.ACCEPTABLE] -= 1
                    counts[finding.state] += 1
            if finding.good:
                yield f"{node.path}: {changes}"
        if finding.state is State.REFUSED:
            yield f"{node.path}: not accepted, {finding.reason}"
    if counts[State.BEHIND]:
        yield f"not accepted, {counts[State.BEHIND]} that are made from what is not up to date."
    n = counts[State.ACCEPTABLE]
    if not n:
        yield f"nothing to accept in {review.results}."
    else:
        outcome = "accepted." if adopt else "listed only: --yes accepts them as they are."
        artifacts = "artifact" if n == 1 else "artifacts"
        yield f"{n} {artifacts} in {review.results} whose code alone has changed, {outcome}"


def _changes(finding: Finding) -> str:
    assert finding.artifact is not None
    texts = list(code_changes(finding.artifact.manifest["code"], code_now(finding.node)))
    more = f" and {len(texts) - _MOST_NAMED} more" if len(texts) > _MOST_NAMED else ""
    return f"{', '.join(texts[:_MOST_NAMED])}{more}" if texts else "its last job did not end"


class Review:
    """The states of the artifacts in one results folder, found parents before children."""

    def __init__(self, results: Path) -> None:
        self.results = results
        self.findings: dict[str, Finding] = {}

    def look(self, node: Node) -> Finding:
        """Return the state of an artifact; those of its parents must be known."""
        process = writer(lock_file(self._work(node)))
        if process is not None:
            return self._note(_refused(node, f"process {process} is making it"))
        return self._note(self._inspected(node))

    def adopt(self, finding: Finding) -> Finding:
        """Accept an artifact, unless it has changed or is damaged; return its new state."""
        node, work = finding.node, self._work(finding.node)
        with locked_if_free(work) as free:
            if not free:
                return self._note(_refused(node, "another process is making it"))
            finding = self._inspected(node)
            if finding.state is not State.ACCEPTABLE:
                return self._note(finding)
            assert finding.artifact is not None
            try:
                finding.artifact.verify()
            except UserError as error:
                return self._note(_refused(node, str(error)))
            rewrite(
                finding.artifact, adopted(finding.artifact.manifest, node), provenance_file(work)
            )
            return self._note(self._inspected(node))

    def _work(self, node: Node) -> Path:
        return work_folder(self.results, node.stage, node.folder)

    def _note(self, finding: Finding) -> Finding:
        self.findings[finding.node.path] = finding
        return finding

    def _inspected(self, node: Node) -> Finding:
        folder = self.results / node.path
        finished = (folder / MANIFEST).exists()
        if not finished and not (folder / MEMO).exists():
            return Finding(node, State.ABSENT)
        try:
            artifact = open_artifact(folder) if finished else remembered(folder)
        except UserError as error:
            return _refused(node, str(error))
        inputs = self._inputs(node)
        if inputs is None:
            return Finding(node, State.BEHIND)
        reason = next(size_damage(artifact), None) or _difference(artifact, node, inputs)
        if reason is not None:
            return _refused(node, reason)
        same = finished and artifact.manifest["code"] == code_now(node)
        return Finding(node, State.UP_TO_DATE if same else State.ACCEPTABLE, artifact)

    def _inputs(self, node: Node) -> dict[str, Artifact | list[Artifact]] | None:
        """Return a node's input artifacts by role; None if one is refused or absent."""
        inputs: dict[str, Artifact | list[Artifact]] = {}
        for role, source in node.inputs.items():
            parents = source if isinstance(source, tuple) else (source,)
            opened = [artifact for n in parents if (artifact := self.findings[n.path].artifact)]
            if len(opened) < len(parents):
                return None
            inputs[role] = opened if isinstance(source, tuple) else opened[0]
        return inputs


def _difference(
    artifact: Artifact, node: Node, inputs: Mapping[str, Artifact | list[Artifact]]
) -> str | None:
    """Return what besides its code has changed since an artifact was made, if anything."""
    if artifact.stage != node.stage or not _equal(artifact.settings, node.settings):
        return "its settings are others"
    if not _equal(artifact.inputs, input_digests(inputs, node.files)):
        return "its inputs or the user's files have changed since it was made"
    return None


def _refused(node: Node, reason: str) -> Finding:
    return Finding(node, State.REFUSED, reason=reason)


def _equal(one: Any, other: Any) -> bool:
    return canonical_json(one) == canonical_json(other)


def adopted(manifest: Mapping[str, Any], node: Node) -> dict[str, Any]:
    """Return a manifest with the present code digests, and the former ones under `accepted`.

    An entry there has the digest of all code before (`from`) and after (`to`), and the former
    digests of the definitions that `changed`, null for new ones.
    """
    then, now = manifest["code"], code_now(node)
    if then == now:
        return dict(manifest)
    changed = {name: then.get(name) for name in then.keys() | now.keys()
               if then.get(name) != now.get(name)}  # fmt: skip
    entry = {"from": joint_digest(then), "to": joint_digest(now), "changed": changed}
    former_packages = manifest.get("packages", {})
    # The versions that made the artifact, of the packages that the present code uses.
    packages = {name: former_packages.get(name, version)
                for name, version in packages_now(node).items()}  # fmt: skip
    former = manifest.get(ACCEPTED, [])
    changes = {"code": now, "packages": packages, ACCEPTED: [*former, entry]}
    if node.inputs:
        # Manifests of older versions lack the list.
        changes[PARENTS] = node.input_paths
    return {**manifest, **changes}


def rewrite(artifact: Artifact, manifest: Mapping[str, Any], beside: Path) -> None:
    """Replace an artifact's manifest. A kill leaves the old one, the new one, or the memo of either
    without a manifest."""
    text = manifest_text(manifest)
    (artifact.path / MANIFEST).unlink(missing_ok=True)
    # Without this, the disk may write the removal after the new memo.
    force_to_disk(artifact.path)
    if (artifact.path / MEMO).read_bytes() != text:
        write_synced(artifact.path / MEMO, text, beside)
    write_synced(artifact.path / MANIFEST, text, beside)


def up_to_date_targets(plan: Plan, review: Review) -> list[str]:
    """Return targets for Snakemake that cover all artifacts of a plan that are up to date.

    Ancestors of these targets are left out. The copies of the summary are included if they are
    equal to the report's.
    """
    done = {
        node.path: node
        for node in plan.nodes.values()
        if review.findings[node.path].state is State.UP_TO_DATE
    }
    behind = {parent.path for node in done.values() for parent in node.parents()}
    targets = [f"{plan.results}/{path}/{MANIFEST}" for path in done if path not in behind]
    report = Path(plan.report).parent
    copies = [Path(plan.results) / name for name in _SUMMARY]
    if plan.report in targets and all(_same(path, report / path.name) for path in copies):
        targets += map(str, copies)
    return targets


def _same(one: Path, other: Path) -> bool:
    return one.is_file() and other.is_file() and filecmp.cmp(one, other, shallow=False)


def _snakefile() -> Path:
    """Return the Snakefile of the present folder, else the package's."""
    return snakefile_in(Path()) or shipped() / "workflow" / "Snakefile"


def record_as_done(snakefile: Path, config: Path, targets: Sequence[str]) -> None:
    """Have Snakemake record the present code and parameters for the targets and their ancestors.

    Raises UserError if Snakemake fails.
    """
    command = [
        sys.executable, "-m", "snakemake", "--snakefile", str(snakefile), "--cores", "1",
        "--touch", "--configfile", str(config), "--", *targets,
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
        raise UserError(
            f"the artifacts of {config} are accepted, but Snakemake did not record it: "
            f"{''.join(last)}. Its jobs would change nothing; or run `vista accept` again."
        )
