"""The long campaign: `python -m tests.faults [--seed N] [--share S] [--out FILE]`.

Exit status 1 where a result was lost, damage went unnamed, or finished work was done again.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

from .campaign import Campaign
from .faults import DAMAGE_KINDS
from .runs import ROOT

COUNTS = {
    "kill_stage": 24,
    "kill_snakemake": 12,
    "kill_both": 12,
    "disk_full": 12,
    "torn_write": 14,
    "bit_flip": 16,
    "chunk_deleted": 10,
    "second_run": 6,
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--seed", type=int, default=475)
    parser.add_argument("--share", type=float, default=1.0, help="share of the faults to do")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "faults.json")
    parser.add_argument("--config", type=Path, default=ROOT / "config" / "faults.yaml")
    parser.add_argument("--stages", nargs="*", default=[], help="only these and what they need")
    parser.add_argument("--scratch", type=Path, help="default: a temporary folder")
    arguments = parser.parse_args()
    scratch = arguments.scratch or Path(tempfile.mkdtemp(prefix="faults-"))
    start = time.monotonic()
    campaign = Campaign(arguments.config, scratch, arguments.seed, tuple(arguments.stages))
    try:
        campaign.run({kind: round(n * arguments.share) for kind, n in COUNTS.items()})
    finally:
        # Of a campaign that was stopped too: what it did until then.
        campaign.close()
        report = {
            **campaign.report(),
            "seed": arguments.seed,
            "cores": os.cpu_count(),
            "disk": "tmpfs" if campaign.disk.mounted else "not filled: mounting is not allowed",
            "seconds": round(time.monotonic() - start, 1),
        }
        text = json.dumps(report, indent=1)
        print(*campaign.remarks, *campaign.notes, *campaign.redone.stale_resumes, text, sep="\n")
        arguments.out.write_text(text + "\n")
    unnamed = [fault for fault in campaign.faults if fault.kind in DAMAGE_KINDS and not fault.named]
    return int(bool(report["lost"] or unnamed or campaign.notes or campaign.redone.stale_resumes))


if __name__ == "__main__":
    sys.exit(main())
