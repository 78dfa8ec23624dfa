"""Artifacts that no config needs: listed, and deleted on request.

Only folders and files that the workflow made are considered: those below a known stage whose names
end in an id. Links, and everything else in a results folder, are left alone.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from vista.engine.artifacts import CHECKSUMS, MANIFEST, MEMO, digest_text
from vista.engine.forecast.overview import size
from vista.engine.locks import (
    WORK,
    locked,
    provenance_file,
    refuse_while_running,
    work_folder,
    writer,
)
from vista.engine.plan import ORDERS, load_plan
from vista.engine.stages import stages
from vista.errors import UserError

# The folders below the results that have a subfolder for each stage, and how names continue there
# after that of the artifact: each job that does a part has a mark, a log and a benchmark.
_NODE, _PART = r"([A-Za-z0-9_.+-]+-[0-9a-f]{10})", r"(\.\d+of\d+)?"
_PROVENANCE = re.escape(provenance_file(Path("_")).name.removeprefix("_"))
_ORDER = re.compile(r"([0-9a-f]{64})\.(json|\d+)")
_ARTIFACT = ("", "")
_WORK = (WORK, rf"({_PART}|{_PROVENANCE}(\.unfinished)?)")
_OUTCOME = "nothing more was deleted"
# Stages of earlier versions: no config needs their artifacts any more.
_FORMER_STAGES = ("removal", "replacement")
_BESIDE = (("logs", rf"{_PART}\.log"), ("benchmarks", rf"{_PART}\.tsv"))


@dataclass(frozen=True)
class Unneeded:
    """What is left of an artifact: folder, work of interrupted jobs, logs and benchmarks."""

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
        names = [name for name, paths in parts.items() if paths]
        return f"{self.stage}/{self.node} ({', '.join(names)})"


def collect(configs: Sequence[Path], results: Path | None, *, delete: bool) -> str:
    """List what no config needs, delete it if `delete`, and return a report.

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
    artifacts = unneeded(results, {key for plan in plans for key in plan.nodes})
    orders = _orders(results, (node.spec for plan in plans for node in plan.nodes.values()))
    sizes = {str(artifact): artifact.bytes for artifact in artifacts}
    sizes |= {f"{ORDERS}/{order.name}": _bytes(order) for order in orders}
    if delete:
        discard(results, artifacts, orders)
    lines = [f"{size(n):>8}  {name}" for name, n in sizes.items()]
    counts = f"{len(artifacts)} artifacts" + (f" and {len(orders)} orders" if orders else "")
    total = f"{size(sum(sizes.values()))} of {counts} in {results} that no given config needs"
    outcome = "deleted." if delete else "listed only: --delete deletes them."
    return "\n".join(
        [*lines, f"{total}, {outcome}" if lines else f"nothing to delete in {results}."]
    )


def unneeded(results: Path, needed: Container[tuple[str, str]]) -> list[Unneeded]:
    """Return what is left of artifacts whose (stage, folder) is not in `needed`."""
    parts = []
    for stage in (*stages(), *_FORMER_STAGES):
        artifacts, works, *besides = (
            _left(results, stage, place, ending, needed)
            for place, ending in (_ARTIFACT, _WORK, *_BESIDE)
        )
        whole = {node: path for node, (path,) in artifacts.items() if _is_artifact(path)}
        for node in sorted({*whole, *works, *(name for files in besides for name in files)}):
            beside = tuple(path for files in besides for path in files.get(node, ()))
            parts.append(Unneeded(stage, node, whole.get(node), works.get(node, ()), beside))
    return parts


def _left(
    results: Path, stage: str, place: str, ending: str, needed: Container[tuple[str, str]]
) -> dict[str, tuple[Path, ...]]:
    """Return the files of one place that belong to unneeded artifacts of a stage, by artifact."""
    folder = results / place / stage
    left: dict[str, tuple[Path, ...]] = {}
    # Backwards: the provenance is deleted before the work, which is not resumed without it.
    for path in sorted(folder.iterdir(), reverse=True) if _inside(folder, results) else ():
        name = re.fullmatch(_NODE + ending, path.name)
        if name and (stage, name[1]) not in needed and _inside(path, results):
            left[name[1]] = (*left.get(name[1], ()), path)
    return left


def _orders(results: Path, needed: Iterable[str]) -> list[Path]:
    """Return the files of long orders, complete or not, whose text is not in `needed`."""
    folder = results / WORK / ORDERS
    if not _inside(folder, results):
        return []
    digests = set(map(digest_text, needed))
    return [
        path
        for path in sorted(folder.iterdir())
        if (name := _ORDER.fullmatch(path.name)) and name[1] not in digests
    ]


def _inside(path: Path, results: Path) -> bool:
    """Whether `path` exists and no link lies between it and the results folder."""
    return path.exists() and path.resolve() == results.resolve() / path.relative_to(results)


def _is_artifact(folder: Path) -> bool:
    """Whether a folder is an artifact, damaged or not, or an empty one that a job began."""
    names = (MANIFEST, MEMO, CHECKSUMS)
    return folder.is_dir() and (
        any((folder / name).is_file() for name in names) or not any(folder.iterdir())
    )


def _bytes(path: Path) -> int:
    if path.is_file():
        return path.stat().st_size
    return sum(
        (Path(folder) / name).lstat().st_size
        for folder, _, names in os.walk(path)
        for name in names
    )


def discard(results: Path, leftovers: Iterable[Unneeded], orders: Iterable[Path]) -> None:
    """Delete artifacts and orders; a kill leaves each of them whole or absent.

    Raises UserError while a workflow runs.
    """
    _refuse_while_written(results)
    for leftover in leftovers:
        refuse_while_running(results, _OUTCOME)
        work = work_folder(results, leftover.stage, leftover.node)
        # The lock file stays: a job may be waiting for it.
        with locked(work, results / leftover.stage / leftover.node):
            for path in leftover.work:
                _remove(path)
            if leftover.artifact is not None:
                # One step, after which a kill leaves unfinished work and no artifact.
                os.replace(leftover.artifact, work)
                _remove(work)
            for path in leftover.beside:
                _remove(path)
    for path in orders:
        refuse_while_running(results, _OUTCOME)
        _remove(path)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


def _refuse_while_written(results: Path) -> None:
    # Jobs that a killed workflow left running hold no lock of Snakemake's.
    for lock in (results / WORK).glob("*/*.lock"):
        process = writer(lock)
        if process is not None:
            node = f"{lock.parent.name}/{lock.stem}"
            raise UserError(f"process {process} is making {node}: wait until it ends; {_OUTCOME}.")
