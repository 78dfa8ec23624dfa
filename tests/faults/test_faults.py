"""The campaign in short: the stages that need no model, each kind of fault at least once."""

from __future__ import annotations

from pathlib import Path

from faults.campaign import Campaign
from faults.faults import DAMAGE_KINDS
from faults.runs import ROOT, Trace

COUNTS = {
    "kill_stage": 2,
    "kill_snakemake": 1,
    "kill_both": 1,
    "disk_full": 1,
    "torn_write": 2,
    "bit_flip": 1,
    "chunk_deleted": 1,
    "second_run": 1,
}


def test_a_disturbed_run_ends_with_the_bytes_of_one_left_alone(tmp_path: Path) -> None:
    stages = ("records", "text")
    campaign = Campaign(ROOT / "config" / "faults.yaml", tmp_path, seed=475, targets=stages)
    try:
        campaign.run(COUNTS)
    finally:
        campaign.close()
    report = campaign.report()
    assert not campaign.notes, campaign.notes
    assert report["lost"] == 0
    tried = {kind: counts["tried"] for kind, counts in report["kinds"].items()}
    # A disk can be filled where mounting is allowed.
    assert tried == {k: n for k, n in COUNTS.items() if k != "disk_full" or campaign.disk.mounted}
    assert all(report["kinds"][kind]["named"] for kind in DAMAGE_KINDS)


def test_a_start_that_passes_the_newest_checkpoint_over_is_noticed() -> None:
    def rows(*each: tuple[str, str]) -> Trace:
        return Trace([("train/a", what, f".work/train/a{path}") for what, path in each])

    save = [("operation", "/checkpoints/unfinished"), ("renamed", "/checkpoints/step-5")]
    again = [("operation", "/checkpoints/unfinished"), ("renamed", "/checkpoints/step-10")]
    whole = [("start", ""), *save, *again]
    assert not rows(*whole).stale_resumes()
    resumed = [("start", ""), ("read", "/checkpoints/step-10/curve.json"), *save]
    assert not rows(*whole, *resumed).stale_resumes()
    older = [("start", ""), ("read", "/checkpoints/step-5/curve.json"), *save]
    assert len(rows(*whole, *older).stale_resumes()) == 1
    afresh = [("start", ""), *save]
    assert len(rows(*whole, *afresh).stale_resumes()) == 1
