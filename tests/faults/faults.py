"""What a fault is, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass

from .runs import Done

STAGE_KINDS = ("kill_stage", "kill_snakemake", "kill_both", "disk_full", "torn_write")
DAMAGE_KINDS = ("bit_flip", "chunk_deleted")
FINISHED_KINDS = (*DAMAGE_KINDS, "second_run")
KINDS = (*STAGE_KINDS, *FINISHED_KINDS)
# Runs that get no further before a campaign gives a pass up.
STRIKES = 3


@dataclass
class Fault:
    """One fault: what, where, and what came of it.

    `named`: the tool said what is wrong, in words; `lost`: results differ, finished work was done
    again, or the run did not get over it.
    """

    number: int
    kind: str
    node: str
    moment: str = ""
    survived: bool = False
    named: bool = False
    why: str = ""

    def line(self) -> str:
        end = "survived" if self.survived else f"LOST: {self.why}"
        return f"#{self.number:03d} {self.kind:14} {self.node}  {self.moment}  -> {end}" + (
            ", named" if self.named else ""
        )


def tail(done: Done) -> str:
    """The last lines of what was said that tell of an error."""
    lines = [line for line in done.said.splitlines() if "Error" in line]
    return " | ".join(lines[-4:])[:600]
