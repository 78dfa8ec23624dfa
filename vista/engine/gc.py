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

from vista.engine.artifacts import CHECKSUMS, MANIFEST, MEMO, digest_text
from vista.engine.forecast.overview import size
from vista.engine.locks import WORK, locked, record_file, refuse_while_running, work_folder, writer
from vista.engine.plan import ORDERS, load_plan
from vista.engine.stages import stages
from vista.errors import UserError

# The folders below the results in which each stage has one, and how the name of an artifact goes
# on there: jobs that do a part leave a mark, a log and a benchmark of their own.
_NODE, _PART = r"([A-Za-z0-9_.+-]+-[0-9a-f]{10})", r"(\.\d+of\d+)?"
_RECORD = re.escape(record_file(Path("_")).name.removeprefix("_"))
_ORDER = re.compile(r"([0-9a-f]{64})\.(json|\d+)")
_ARTIFACT = ("", "")
_WORK = (WORK, rf"({_PART}|{_RECORD}(\.unfinished)?)")
_OUTCOME = "nothing more was deleted"
# Stages of earlier versions: no config needs their artifacts any more.
_FORMER_STAGES = ("removal", "replacement")
_BESIDE = (("logs", rf"{_PART}\.log"), ("benchmarks", rf"{_PART}\.tsv"))


@dataclass(frozen=True)
class Unneeded:
    """All that is left of one artifact: its folder, the work of jobs that did not end, their logs
    and benchmarks; those of them that are there."""

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
    orders = _orders(results, (node.spec for plan in plans for node in plan.nodes.values()))
    sizes = {str(each): each.bytes for each in found}
    sizes |= {f"{ORDERS}/{each.name}": _bytes(each) for each in orders}
    if delete:
        discard(results, found, orders)
    lines = [f"{size(n):>8}  {name}" for name, n in sizes.items()]
    counts = f"{len(found)} artifacts" + (f" and {len(orders)} orders" if orders else "")
    total = f"{size(sum(sizes.values()))} of {counts} in {results} that no given config needs"
    said = "deleted." if delete else "listed only: --delete deletes them."
    return "\n".join([*lines, f"{total}, {said}" if lines else f"nothing to delete in {results}."])


def unneeded(results: Path, needed: Container[tuple[str, str]]) -> list[Unneeded]:
    """Return what is left of artifacts whose (stage, folder) is not among the `needed`."""
    parts = []
    for stage in (*stages(), *_FORMER_STAGES):
        artifacts, works, *besides = (
            _left(results, stage, place, ending, needed)
            for place, ending in (_ARTIFACT, _WORK, *_BESIDE)
        )
        whole = {node: path for node, (path,) in artifacts.items() if _is_artifact(path)}
        for node in sorted({*whole, *works, *(name for each in besides for name in each)}):
            beside = tuple(path for each in besides for path in each.get(node, ()))
            parts.append(Unneeded(stage, node, whole.get(node), works.get(node, ()), beside))
    return parts


def _left(
    results: Path, stage: str, place: str, ending: str, needed: Container[tuple[str, str]]
) -> dict[str, tuple[Path, ...]]:
    """Return what lies in one folder under the names of artifacts of a stage that nobody needs."""
    folder = results / place / stage
    left: dict[str, tuple[Path, ...]] = {}
    # Backwards, so that the record comes before the work, which is not taken up without it.
    for path in sorted(folder.iterdir(), reverse=True) if _inside(folder, results) else ():
        name = re.fullmatch(_NODE + ending, path.name)
        if name and (stage, name[1]) not in needed and _inside(path, results):
            left[name[1]] = (*left.get(name[1], ()), path)
    return left


def _orders(results: Path, needed: Iterable[str]) -> list[Path]:
    """Return the files of long orders, whole or not, that are none of the `needed` ones."""
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


def discard(results: Path, found: Iterable[Unneeded], orders: Iterable[Path] = ()) -> None:
    """Delete artifacts and orders. A kill in between leaves each whole or not there at all.

    Raises UserError where a workflow runs.
    """
    _refuse_while_written(results)
    for each in found:
        refuse_while_running(results, _OUTCOME)
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
    for path in orders:
        refuse_while_running(results, _OUTCOME)
        _remove(path)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


def _refuse_while_written(results: Path) -> None:
    # What a killed workflow left running has no lock of Snakemake's.
    for lock in (results / WORK).glob("*/*.lock"):
        process = writer(lock)
        if process is not None:
            node = f"{lock.parent.name}/{lock.stem}"
            raise UserError(f"process {process} is making {node}: wait until it ends; {_OUTCOME}.")
