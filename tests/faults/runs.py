"""Runs of the workflow as a user starts them, what they did, and the remedies that they print."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vista.engine.artifacts import MANIFEST
from vista.engine.node import Node

ROOT = Path(__file__).parents[2]
INSIDE = Path(__file__).parent / "inside"
_REBUILD = re.compile(r"rm -r '([^']+)'")
_LOCKED = "Directory cannot be locked"
# A command that takes longer hangs: the undisturbed run takes a minute.
TIMEOUT_S = 900


@dataclass(frozen=True)
class Done:
    """A command that ended: its exit status and all that it printed."""

    status: int
    said: str

    @property
    def locked(self) -> bool:
        return _LOCKED in self.said

    @property
    def full(self) -> bool:
        return "no space left" in self.said.lower()

    def rebuilds(self) -> set[str]:
        """The folders that the command says to remove, as it names them."""
        return set(_REBUILD.findall(self.said))


class Started:
    """A command under way, the leader of a process group."""

    def __init__(self, command: Sequence[str], folder: Path, environment: dict[str, str]) -> None:
        self._said = folder / f"said-{time.monotonic_ns()}.txt"
        # A file and not a pipe: what a killed Snakemake leaves running would hold a pipe open.
        with self._said.open("wb") as out:
            self.process = subprocess.Popen(
                command,
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait(self) -> Done:
        try:
            status = self.process.wait(TIMEOUT_S)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            status = self.process.wait()
        return Done(status, self._said.read_text(errors="replace"))


class Runs:
    """One working folder below `scratch`, and the commands that are given in it.

    `results` stands for the folder of the results; `trace` collects what the stages did.
    """

    def __init__(self, folder: Path, scratch: Path, config: Path) -> None:
        self.folder, self.config = folder, config
        self.results = folder / "results"
        self.scratch = scratch
        scratch.mkdir(parents=True, exist_ok=True)
        self.trace = scratch / "trace.tsv"

    def snakemake(
        self,
        *options: str,
        orders: Sequence[dict[str, Any]] = (),
        folder: Path | None = None,
    ) -> Started:
        """Start the command that a user types, with orders for `inside` its stages."""
        command = [
            sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"),
            "--cores", "2", "--directory", str(folder or self.folder),
            f"--configfile={self.config}", "--rerun-incomplete", *options,
        ]  # fmt: skip
        return Started(command, self.scratch, self._environment(orders))

    def verify(self) -> Done:
        command = [sys.executable, "-m", "vista.cli", "verify", str(self.results)]
        return Started(command, self.scratch, self._environment(())).wait()

    def _environment(self, orders: Sequence[dict[str, Any]]) -> dict[str, str]:
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        return {
            **os.environ,
            "PATH": path,
            # The stages' own code is that of this checkout, wherever an editable install points.
            "PYTHONPATH": f"{INSIDE}:{ROOT}",
            "VISTA_FAULT_TRACE": str(self.trace),
            "VISTA_FAULT": json.dumps(list(orders)),
        }

    def remedy(self, done: Done) -> set[str]:
        """Do what the tool says to do before the next run; return the artifacts removed."""
        removed = set()
        for named in done.rebuilds():
            path = (self.folder / named).resolve()
            if path.is_relative_to(self.results.resolve()) and path.is_dir():
                shutil.rmtree(path)
                removed.add(path.relative_to(self.results.resolve()).as_posix())
        if done.locked:
            assert "--unlock" in done.said, "a lock without its remedy"
            assert self.snakemake("--unlock").wait().status == 0
        return removed

    def done(self, node: Node) -> bool:
        return (self.results / node.path / MANIFEST).is_file()

    def digests(self, path: str) -> dict[str, str]:
        """Return the SHA-256 of each file of an artifact, or of any folder of the results."""
        root = self.results / path
        files = sorted(each for each in root.rglob("*") if each.is_file())
        return {
            each.relative_to(root).as_posix(): hashlib.sha256(each.read_bytes()).hexdigest()
            for each in files
        }

    def outcome(self) -> dict[str, str]:
        """Return the digest of each file beside the artifacts: the published tables and figures."""
        tables = {each.name: each for each in self.results.glob("summary.*")}
        figures = {each.name: each for each in (self.results / "figures").glob("*")}
        return {
            name: hashlib.sha256(path.read_bytes()).hexdigest()
            for name, path in {**tables, **figures}.items()
        }


@dataclass(frozen=True)
class Trace:
    """What the stages did, out of their trace: (node, what, path) in order."""

    rows: list[tuple[str, str, str]]

    @classmethod
    def read(cls, path: Path) -> Trace:
        lines = path.read_text().splitlines() if path.exists() else []
        rows = [tuple(line.split("\t")) for line in lines]
        return cls([(row[0], row[1], row[2]) for row in rows if len(row) == 3])

    def operations(self) -> Counter[str]:
        """The number of operations of each node."""
        return Counter(node for node, what, _ in self.rows if what == "operation")

    def reads(self) -> set[tuple[str, str]]:
        """(node, file of one of its inputs) for each file that a stage opened."""
        return {
            (node, path)
            for node, what, path in self.rows
            if what == "read" and not path.startswith((".work/", f"{node}/", "judgements/"))
        }

    def published(self) -> Counter[str]:
        """How often each artifact was published."""
        moved = (path for node, what, path in self.rows if what == "renamed" and path == node)
        return Counter(moved)

    def shards(self) -> Counter[str]:
        """How often each shard of a store was written."""
        return Counter(
            path for _, what, path in self.rows if what == "renamed" and re.search(r"/c/\d+/", path)
        )

    def checkpoints(self) -> Counter[str]:
        """How often each checkpoint was written."""
        return Counter(
            path for _, what, path in self.rows if what == "renamed" and "/checkpoints/" in path
        )

    def stale_resumes(self) -> list[str]:
        """The projectors that went on from another checkpoint than their newest one."""
        newest: dict[str, str] = {}
        wrong, fresh = [], set()
        for node, what, path in self.rows:
            if what == "start":
                fresh.add(node)
            elif "/checkpoints/" not in path:
                if what == "renamed" and path == node:
                    newest.pop(node, None)
            elif what == "renamed":
                newest[node] = path
            elif node in fresh:
                fresh.discard(node)
                if node in newest and not (what == "read" and path.startswith(newest[node])):
                    wrong.append(f"{node}: {what} {path}, newest {newest[node]}")
        return wrong
