"""Faults of a finished run: damage to its artifacts, and two runs at once."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING

from vista.engine.artifacts import MANIFEST

from .faults import STRIKES, Fault, tail

if TYPE_CHECKING:
    from .campaign import Campaign


def damage(campaign: Campaign, kind: str) -> None:
    """Damage a file that some stage reads: it must be named by `verify` and by that stage."""
    files = {
        f"{node}/{name}" for node, names in campaign.reference.digests.items() for name in names
    }
    reads = sorted(each for each in campaign.reference.reads if each[1] in files)
    by_stage: dict[str, list[tuple[str, str]]] = {}
    for reader, read in reads:
        if kind == "bit_flip" or not read.endswith(MANIFEST):
            by_stage.setdefault(read.split("/")[0], []).append((reader, read))
    stage = campaign.random.choice(sorted(by_stage))
    reader, name = campaign.random.choice(by_stage[stage])
    victim = "/".join(name.split("/")[:2])
    if campaign.random.random() < 0.3:
        # Any file of the artifact, also one that no stage reads.
        chosen = campaign.random.choice(sorted(campaign.reference.digests[victim]))
        name = f"{victim}/{chosen}" if chosen != MANIFEST or kind == "bit_flip" else name
    path = campaign.runs.results / name
    fault = Fault(len(campaign.faults) + 1, kind, name)
    campaign.faults.append(fault)
    if kind == "bit_flip":
        data = bytearray(path.read_bytes())
        bit = campaign.random.randrange(8 * len(data))
        data[bit // 8] ^= 1 << bit % 8
        path.write_bytes(data)
        fault.moment = f"bit {bit}"
    else:
        path.unlink()
    verified = campaign.runs.verify()
    fault.named = verified.status != 0 and victim in verified.said
    shutil.rmtree(campaign.runs.results / reader)
    campaign.allowed[reader] += 1
    after = campaign.runs.snakemake(*campaign.goals).wait()
    named = after.status != 0 and (Path(name).name in after.said or bool(after.rebuilds()))
    by_reader = "named" if named else "unread" if after.status == 0 else "failed unnamed"
    fault.moment += f" reader {reader.split('/')[0]}: {by_reader}"
    # A reader that gave other bytes has taken damage for data.
    wrong = [each for each in campaign.differences() if each.startswith(reader)]
    for done in (verified, after):
        campaign.allowed.update(campaign.runs.remedy(done))
    if by_reader == "failed unnamed":
        wrong.append(f"{reader} failed without naming it")
    _close(campaign, fault, wrong)


def two_runs(campaign: Campaign) -> None:
    """Start two runs on one results folder: in one working folder, or in two that share it."""
    lost = campaign.random.sample(sorted(campaign.nodes), min(3, len(campaign.nodes)))
    for path in lost:
        shutil.rmtree(campaign.runs.results / path)
        campaign.allowed[path] += 1
    apart = campaign.random.random() < 0.5
    other = campaign.runs.folder
    if apart:
        other = campaign.scratch / f"other-{len(campaign.faults)}"
        other.mkdir()
        (other / "results").symlink_to(campaign.runs.results)
    fault = Fault(len(campaign.faults) + 1, "second_run", "+".join(sorted(lost)))
    campaign.faults.append(fault)
    first = campaign.runs.snakemake(*campaign.goals)
    pause = campaign.random.uniform(0, 6)
    time.sleep(pause)
    second = campaign.runs.snakemake(*campaign.goals, folder=other)
    ends = [first.wait(), second.wait()]
    fault.moment = f"after {pause:.1f} s, {'two folders' if apart else 'one folder'}: "
    fault.moment += " and ".join(
        "done" if end.status == 0 else "refused" if end.locked else "failed" for end in ends
    )
    fault.named = any(end.locked for end in ends)
    if apart:
        for end in ends:
            if end.status:
                campaign.remarks.append(f"#{fault.number}: {tail(end)}")
    _close(campaign, fault, [])


def _close(campaign: Campaign, fault: Fault, wrong: list[str]) -> None:
    """Run to the end again; the fault is survived if that works and all bytes are right."""
    for _ in range(STRIKES):
        done = campaign.runs.snakemake(*campaign.goals).wait()
        if done.status == 0:
            break
        campaign.allowed.update(campaign.runs.remedy(done))
    wrong = [*wrong, *campaign.differences()]
    fault.survived = done.status == 0 and not wrong
    fault.why = "" if fault.survived else f"{wrong[:4]} {tail(done)}"
    print(fault.line(), flush=True)
    if not fault.survived:
        campaign.start_over()
