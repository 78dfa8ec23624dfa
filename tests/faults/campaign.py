"""A campaign of faults: a run that is disturbed again and again must end as one left alone.

Each fault is drawn by the seed. After each, the command that a user types is given again, preceded
only by remedies that the tool printed. A pass is a run from nothing to its end; faults that hit
running stages come first, damage to finished artifacts last.
"""

from __future__ import annotations

import json
import random
import re
import shutil
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vista.engine.artifacts import MANIFEST
from vista.engine.node import Node
from vista.engine.plan import load_plan

from .faults import FINISHED_KINDS, KINDS, STAGE_KINDS, STRIKES, Fault, tail
from .finished import damage, two_runs
from .runs import Done, Runs, Trace
from .tmpfs import Disk

# Operations around publication: checksums, memo, the rename and the manifest.
_LAST = 14
# Faults of a stage in one pass. More where work is resumed, or where a try costs little.
_QUOTA = {
    **dict.fromkeys(("features", "train_projector", "latents"), 4),
    **dict.fromkeys(("draw_world", "records", "text"), 6),
    **dict.fromkeys(("import_sae", "reconstruction", "matching_rate", "report"), 3),
}


@dataclass
class Reference:
    """The undisturbed run."""

    seconds: float
    digests: dict[str, dict[str, str]]
    outcome: dict[str, str]
    operations: Counter[str]
    reads: set[tuple[str, str]]
    times: dict[str, float]


@dataclass
class Redone:
    """Whole units of finished work that were made twice."""

    artifacts: int = 0
    shards: int = 0
    checkpoints: int = 0
    stale_resumes: list[str] = field(default_factory=list)


class Campaign:
    """Faults on the run of `config`, in `scratch`, drawn by `seed`."""

    def __init__(self, config: Path, scratch: Path, seed: int, targets: tuple[str, ...] = ()):
        self.random = random.Random(seed)
        plan = load_plan(config)
        chosen = [node for node in plan.nodes.values() if not targets or node.stage in targets]
        self.nodes = {node.path: node for node in self._with_parents(chosen)}
        # Without targets: everything, with the published tables.
        manifests = [f"{plan.results}/{path}/{MANIFEST}" for path in self.nodes]
        self.goals = manifests if targets else []
        self.scratch = scratch
        self.config = config.resolve()
        self.faults: list[Fault] = []
        self.redone = Redone()
        # What must not be, and what is only worth a look.
        self.notes: list[str] = []
        self.remarks: list[str] = []
        self.disk = Disk(scratch / "disk")
        self.reference = self._undisturbed()
        self.passes = 0
        self._fresh()

    def close(self) -> None:
        self.disk.close()

    def _with_parents(self, nodes: list[Node]) -> Iterator[Node]:
        seen: set[str] = set()
        waiting = list(nodes)
        while waiting:
            node = waiting.pop()
            if node.path not in seen:
                seen.add(node.path)
                waiting += node.parents()
                yield node

    def _undisturbed(self) -> Reference:
        runs = Runs(self.scratch / "undisturbed", self.scratch / "undisturbed-said", self.config)
        start = time.monotonic()
        done = runs.snakemake(*self.goals).wait()
        if done.status:
            raise RuntimeError(f"the undisturbed run failed:\n{done.said[-4000:]}")
        trace = Trace.read(runs.trace)
        times = {}
        for path in self.nodes:
            row = (runs.results / "benchmarks" / f"{path}.tsv").read_text().splitlines()[1]
            times[path] = float(row.split("\t")[0])
        return Reference(
            seconds=time.monotonic() - start,
            digests={path: runs.digests(path) for path in self.nodes},
            outcome=runs.outcome(),
            operations=trace.operations(),
            reads=trace.reads(),
            times=times,
        )

    # Passes

    def _fresh(self) -> None:
        """Begin a pass: nothing is there."""
        self.passes += 1
        folder = self.disk.folder / f"pass-{self.passes}"
        self.runs = Runs(folder, self.scratch / f"said-{self.passes}", self.config)
        self.hits: Counter[str] = Counter()
        self.allowed: Counter[str] = Counter(dict.fromkeys(self.nodes, 1))
        self.open: list[Fault] = []
        self.strikes = 0
        self.settled = 0

    def run(self, counts: dict[str, int]) -> None:
        """Do so many faults of each kind; those of stages spread over as many passes as needed."""
        wanted = [kind for kind in STAGE_KINDS for _ in range(counts.get(kind, 0))]
        if not self.disk.mounted:
            wanted = [kind for kind in wanted if kind != "disk_full"]
        self.random.shuffle(wanted)
        later = [kind for kind in FINISHED_KINDS for _ in range(counts.get(kind, 0))]
        self.random.shuffle(later)
        a_pass = sum(_QUOTA.get(path.split("/")[0], 1) for path in self.nodes)
        per_pass = -(-len(later) // max(1, -(-len(wanted) // a_pass)))
        while wanted or later:
            self._disturb(wanted)
            for _ in range(min(per_pass, len(later)) if wanted else len(later)):
                kind = later.pop()
                if kind == "second_run":
                    two_runs(self)
                else:
                    damage(self, kind)
            self._end_pass()
            if wanted or later:
                self._fresh()

    def _disturb(self, wanted: list[str]) -> None:
        """Run to the end; faults hit each stage, most often those that resume."""
        quota = {path: _QUOTA.get(path.split("/")[0], 1) for path in self.nodes}
        while True:
            waiting = [path for path in self._unfinished() if quota[path]]
            kind = wanted.pop() if wanted and waiting else ""
            hit, done, removed = self._attempt(kind, waiting)
            if hit:
                self._judge(hit, done)
                quota[hit.node] = max(0, quota[hit.node] - 1)
            elif kind:
                wanted.insert(0, kind)
            self._settle()
            if done.status == 0 and not self._unfinished():
                return
            if not hit and not removed and not done.locked:
                self.strikes += 1
                if self.strikes >= STRIKES:
                    self._give_up(done)
                    return

    def _attempt(self, kind: str, waiting: list[str]) -> tuple[Fault | None, Done, set[str]]:
        """Run once, with a fault of that kind, and follow what was printed.

        Each of the nodes has a moment drawn for it; the first that comes is the fault.
        """
        fired = self.scratch / f"fired-{time.monotonic_ns()}"
        orders = [self._order(kind, path, fired) for path in waiting if kind]
        if kind == "disk_full":
            self.runs.folder.mkdir(exist_ok=True)
            self.disk.leave(orders[0]["free"])
        done = self.runs.snakemake(*self.goals, orders=orders).wait()
        hit = None
        if kind == "disk_full":
            self.disk.grow()
            if done.status and not done.locked:
                free = f"{orders[0]['free']} bytes free"
                hit = Fault(len(self.faults) + 1, kind, self._failed(done) or waiting[0], free)
        elif fired.exists():
            told = json.loads(fired.read_text())
            node = told.pop("node")
            hit = Fault(len(self.faults) + 1, kind, node, " ".join(map(str, told.values())))
        removed = self.runs.remedy(done)
        self.allowed.update(removed)
        return hit, done, removed

    def _failed(self, done: Done) -> str | None:
        """The node of the job that Snakemake says has failed."""
        said = re.search(r"Error in rule .*?output: \S*?(\w+/[^/\s]+)/manifest", done.said, re.S)
        return said[1] if said and said[1] in self.nodes else None

    def _order(self, kind: str, path: str, fired: Path) -> dict[str, Any]:
        """Draw the moment of a fault in a stage."""
        draw = self.random
        order: dict[str, Any] = {"node": path, "kind": kind, "fired": str(fired)}
        operations = self.reference.operations[path]
        if kind == "disk_full":
            order["free"] = draw.randrange(4096, max(8192, sum(self._sizes(path))))
        elif kind == "torn_write" and draw.random() < 0.5:
            large = [size for size in self._sizes(path) if size > 2000]
            order["limit"] = draw.choice(large or self._sizes(path)) // 2
        elif kind == "kill_snakemake":
            order["hold"] = draw.choice((0, 8))
            order["at"] = draw.randrange(1, operations + 1)
        elif kind != "torn_write" and draw.random() < 0.3:
            order["after"] = round(draw.uniform(0.2, self.reference.times[path]), 2)
        elif draw.random() < 0.5:
            order["at"] = operations + 1 - draw.randrange(1, min(_LAST, operations) + 1)
        else:
            order["at"] = draw.randrange(1, operations + 1)
        return order

    def _sizes(self, path: str) -> list[int]:
        folder = self.scratch / "undisturbed" / "results" / path
        return sorted(each.stat().st_size for each in folder.rglob("*") if each.is_file())

    def _judge(self, fault: Fault, done: Done) -> None:
        """Note a fault that came to pass; what became of it shows when its stage is finished."""
        self.faults.append(fault)
        self.open.append(fault)
        self.hits[fault.node] += 1
        self.strikes = 0
        said = done.said.lower()
        if fault.kind == "disk_full":
            fault.named = done.full
        elif fault.kind == "torn_write":
            fault.named = "input/output error" in said or "file too large" in said
            fault.named = fault.named or "cannot be written" in said
        if "Traceback" in done.said and fault.kind == "disk_full":
            self.remarks.append(f"#{fault.number}: traceback on a full disk: {tail(done)}")
        print(f"   {fault.kind} {fault.node} {fault.moment}", file=sys.stderr, flush=True)

    # What is there

    def _unfinished(self) -> list[str]:
        return [path for path, node in self.nodes.items() if not self.runs.done(node)]

    def differences(self) -> list[str]:
        """The files of finished artifacts that are not those of the undisturbed run."""
        wrong = []
        for path, node in self.nodes.items():
            if self.runs.done(node):
                found, expected = self.runs.digests(path), self.reference.digests[path]
                wrong += [
                    f"{path}/{name}"
                    for name in sorted({*found, *expected})
                    if found.get(name) != expected.get(name)
                ]
        return wrong

    def _settle(self) -> None:
        """Decide the faults whose stages are finished."""
        finished = [each for each in self.open if self.runs.done(self.nodes[each.node])]
        if not finished:
            return
        wrong = self.differences()
        for fault in finished:
            mine = [each for each in wrong if each.startswith(fault.node)]
            fault.survived = not mine
            fault.why = f"other bytes: {', '.join(mine[:4])}" if mine else ""
            print(fault.line(), flush=True)
            self.open.remove(fault)

    def _give_up(self, done: Done) -> None:
        for fault in self.open:
            fault.why = f"the run does not go on: {tail(done)}"
            print(fault.line(), flush=True)
        self.notes.append(f"pass {self.passes} gave up: {done.said[-1500:]}")
        self.open.clear()
        self._fresh()
        self._disturb([])

    def _end_pass(self) -> None:
        """Compare everything, and count what was made twice."""
        wrong = self.differences()
        if not self.goals and self.runs.outcome() != self.reference.outcome:
            wrong.append("summary or figures")
        if wrong:
            self.notes.append(f"pass {self.passes}: other bytes at the end: {wrong[:6]}")
        trace = Trace.read(self.runs.trace)
        for path, count in trace.published().items():
            if count > self.allowed[path]:
                self.redone.artifacts += count - self.allowed[path]
                self.notes.append(f"pass {self.passes}: {path} was made {count} times")
        again = self._again(trace.shards())
        self.redone.shards += sum(again.values())
        again_points = self._again(trace.checkpoints())
        self.redone.checkpoints += sum(again_points.values())
        for path, count in (again + again_points).items():
            if count > self.hits[path]:
                self.notes.append(f"pass {self.passes}: {path} redid {count} units")
        self.redone.stale_resumes += trace.stale_resumes()
        shutil.rmtree(self.runs.folder, ignore_errors=True)

    def _again(self, written: Counter[str]) -> Counter[str]:
        """Units by node that were written more often than their artifact had to be made."""
        again: Counter[str] = Counter()
        for name, count in written.items():
            node = "/".join(name.removeprefix(".work/").split("/")[:2])
            again[node] += max(0, count - self.allowed[node])
        return +again

    def start_over(self) -> None:
        shutil.rmtree(self.runs.folder, ignore_errors=True)
        self._fresh()
        self._disturb([])

    def report(self) -> dict[str, Any]:
        """Return the counts of each kind."""
        kinds = {}
        for kind in KINDS:
            of_kind = [fault for fault in self.faults if fault.kind == kind]
            if of_kind:
                kinds[kind] = {
                    "tried": len(of_kind),
                    "survived": sum(fault.survived for fault in of_kind),
                    "named": sum(fault.named for fault in of_kind),
                    "lost": sum(not fault.survived for fault in of_kind),
                }
        return {
            "kinds": kinds,
            "faults": len(self.faults),
            "lost": sum(not fault.survived for fault in self.faults),
            "passes": self.passes,
            "redone": {
                "artifacts": self.redone.artifacts,
                "shards": self.redone.shards,
                "checkpoints": self.redone.checkpoints,
                "stale_resumes": len(self.redone.stale_resumes),
            },
            "undisturbed_seconds": round(self.reference.seconds, 1),
        }
