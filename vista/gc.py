"""What no config needs any more, listed and on request deleted.

Only what the workflow itself has made counts: folders and files below a known stage whose names
end in an id. Links are left alone, and so is everything else in a results folder.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from vista.artifacts import CHECKSUMS, MANIFEST, MEMO
from vista.errors import UserError
from vista.forecast.overview import size
from vista.locks import WORK, locked, work_folder, writer
from vista.plan import load_plan
from vista.stages import STAGES

_NODE = re.compile(r"[A-Za-z0-9_.+-]+-[0-9a-f]{10}")
# What a job writes beside its work, whole or not.
_RECORDS = (".record.json", ".record.json.unfinished")
# What the rules write beside each artifact.
_BESIDE = (("logs", ".log"), ("benchmarks", ".tsv"))


@dataclass(frozen=True)
class Unneeded:
    """All that is left of one artifact: its folder, the work of a job that did not end, its log
    and its benchmark; those of them that are there."""

    stage: str
    node: str
    artifact: Path | None
    work: tuple[Path, ...]
    beside: tuple[Path, ...]

    @property
    def bytes(self) -> int:
        """Size of all files."""
        whole = (*(() if self.artifact is None else (self.artifact,)), *self.work, *self.beside)
        return sum(map(_bytes, whole))

    def __str__(self) -> str:
        parts = {"artifact": self.artifact, "unfinished work": self.work, "log": self.beside}
        return f"{self.stage}/{self.node} ({', '.join(name for name, got in parts.items() if got)})"


def collect(configs: Sequence[Path], results: Path | None, *, delete: bool) -> str:
    """List, and with `delete` delete, what no config needs; return what there is to say.

    Args:
        configs: The configs whose artifacts are kept.
        results: The results folder; None: the one that all configs name.
        delete: Whether to delete.

    Raises:
        UserError: A config is wrong, the configs name several results folders, or something is
            to be deleted while a workflow runs.
    """
    plans = [load_plan(config) for config in configs]
    if results is None:
        named = sorted({plan.results for plan in plans})
        if len(named) > 1:
            raise UserError(
                f"the configs have several results folders ({', '.join(named)}): give --results "
                "or the configs of one of them."
            )
        results = Path(named[0])
    if not results.is_dir():
        raise UserError(f"{results} is not there: give the folder of artifacts as --results.")
    found = unneeded(results, {key for plan in plans for key in plan.nodes})
    sizes = [each.bytes for each in found]
    if delete:
        discard(results, found)
    lines = [f"{size(n):>8}  {each}" for n, each in zip(sizes, found, strict=True)]
    total = f"{size(sum(sizes))} of {len(found)} artifacts in {results} that no given config needs"
    said = "deleted." if delete else "listed only: --delete deletes them."
    return "\n".join([*lines, f"{total}, {said}" if found else f"nothing to delete in {results}."])


def unneeded(results: Path, needed: Container[tuple[str, str]]) -> list[Unneeded]:
    """Return what is left of artifacts whose (stage, folder) is not among the `needed`."""
    parts = (
        _left_of(results, stage, node)
        for stage in STAGES
        for node in sorted(_nodes(results, stage))
        if (stage, node) not in needed
    )
    return [part for part in parts if part.artifact or part.work or part.beside]


def _nodes(results: Path, stage: str) -> set[str]:
    """Return the folders of a stage that have left something, finished or not."""
    places = [(results, ""), *((results / WORK, suffix) for suffix in ("", *_RECORDS))]
    places += [(results / place, suffix) for place, suffix in _BESIDE]
    return {
        name
        for place, suffix in places
        if _inside(place / stage, results)
        for each in (place / stage).iterdir()
        if _NODE.fullmatch(name := each.name.removesuffix(suffix))
    }


def _left_of(results: Path, stage: str, node: str) -> Unneeded:
    artifact, work = results / stage / node, work_folder(results, stage, node)
    records = [work.with_name(f"{node}{suffix}") for suffix in _RECORDS]
    beside = [results / place / stage / f"{node}{suffix}" for place, suffix in _BESIDE]
    return Unneeded(
        stage,
        node,
        artifact if _inside(artifact, results) and _is_artifact(artifact) else None,
        # The record first: without it, the work of a job is not taken up again.
        tuple(each for each in (*records, work) if _inside(each, results)),
        tuple(each for each in beside if _inside(each, results)),
    )


def _inside(path: Path, results: Path) -> bool:
    """Whether there is something at `path` and no link leads there from the results folder."""
    return path.exists() and path.resolve() == results.resolve() / path.relative_to(results)


def _is_artifact(folder: Path) -> bool:
    """Whether a folder is an artifact, damaged or not, or one that a job had only begun."""
    own = (MANIFEST, MEMO, CHECKSUMS)
    return folder.is_dir() and (
        any((folder / name).is_file() for name in own) or not any(folder.iterdir())
    )


def _bytes(path: Path) -> int:
    if path.is_file():
        return path.stat().st_size
    return sum(
        (Path(folder) / name).lstat().st_size
        for folder, _, names in os.walk(path)
        for name in names
    )


def discard(results: Path, found: Iterable[Unneeded]) -> None:
    """Delete artifacts. A kill in between leaves each of them whole or not there at all.

    Raises UserError where a workflow runs.
    """
    _refuse_while_written(results)
    for each in found:
        _refuse_while_running(results)
        work = work_folder(results, each.stage, each.node)
        # The lock itself stays: a job that waits for it must not find it gone.
        with locked(work, results / each.stage / each.node):
            for path in each.work:
                _remove(path)
            if each.artifact is not None:
                # In one step it is an artifact no more: what a kill leaves is unfinished work.
                os.replace(each.artifact, work)
                _remove(work)
            for path in each.beside:
                _remove(path)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


def _refuse_while_running(results: Path) -> None:
    for folder in (Path.cwd(), results.resolve().parent):
        if any((folder / ".snakemake" / "locks").glob("*.lock")):
            raise UserError(
                f"a workflow runs in {folder}, or one was killed there: wait until it ends, or "
                "free the folder by `snakemake --unlock`; nothing more was deleted."
            )


def _refuse_while_written(results: Path) -> None:
    # What a killed workflow left running has no lock of Snakemake's.
    for lock in (results / WORK).glob("*/*.lock"):
        process = writer(lock)
        if process is not None:
            node = f"{lock.parent.name}/{lock.stem}"
            raise UserError(
                f"process {process} is making {node}: wait until it ends; nothing more was deleted."
            )
