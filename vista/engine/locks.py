"""Work folders of jobs, and the locks that jobs hold on them."""

from __future__ import annotations

import contextlib
import fcntl
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from vista.errors import UserError

# Below the results folder.
WORK = ".work"


def work_folder(results: Path, stage: str, node: str) -> Path:
    """Return the folder that the job of `<stage>/<node>` writes into until it has finished."""
    return results / WORK / stage / node


def provenance_file(work: Path) -> Path:
    """Return the file with the provenance of what is made in the folder `work`."""
    return work.with_name(f"{work.name}.record.json")


def lock_file(work: Path) -> Path:
    """Return the lock file of the folder `work`; it is kept when the job has ended."""
    return work.with_name(f"{work.name}.lock")


def writer(lock: Path) -> str | None:
    """Return the id of the process that holds a lock; None where none does."""
    try:
        with lock.open("r+") as file:
            try:
                # An exclusive lock fails beside shared ones, too.
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return file.read().strip() or "unknown"
    except (FileNotFoundError, PermissionError):
        pass
    return None


@contextlib.contextmanager
def locked(work: Path, out: Path, *, shared: bool = False) -> Iterator[None]:
    """Hold the lock of one artifact, exclusive or `shared`; print who holds it while waiting."""
    work.parent.mkdir(parents=True, exist_ok=True)
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    with lock_file(work).open("a+") as file:
        try:
            fcntl.flock(file, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            owner = file.read().strip() or "unknown"
            print(
                f"{out}: process {owner} is writing it; waiting until it ends.",
                file=sys.stderr,
                flush=True,
            )
            fcntl.flock(file, kind)
        _sign(file)
        yield


@contextlib.contextmanager
def locked_if_free(work: Path) -> Iterator[bool]:
    """Hold the exclusive lock of one artifact if it is free; yield whether it is held."""
    work.parent.mkdir(parents=True, exist_ok=True)
    with lock_file(work).open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        _sign(file)
        yield True


def refuse_while_running(results: Path, outcome: str) -> None:
    """Raise UserError where Snakemake holds its lock here or beside the results folder.

    `outcome` ends the message, e.g. "nothing was deleted".
    """
    for folder in (Path.cwd(), results.resolve().parent):
        if any((folder / ".snakemake" / "locks").glob("*.lock")):
            raise UserError(
                f"a workflow runs in {folder}, or one was killed there: wait until it ends, or "
                f"free the folder by `snakemake --unlock`; {outcome}."
            )


def _sign(file: TextIO) -> None:
    file.seek(0)
    file.truncate()
    file.write(str(os.getpid()))
    file.flush()
