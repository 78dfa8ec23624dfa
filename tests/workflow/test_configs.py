"""Every shipped config is planned by the real Snakefile, without one of its files being there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from vista.plan import load_plan

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("config", sorted(ROOT.glob("config/*.yaml")), ids=lambda path: path.stem)
def test_a_dry_run_lists_every_job(config: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    command = [
        sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), "--cores", "2",
        "--directory", str(tmp_path), f"--configfile={config}", "--dry-run", "--quiet", "rules",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    stats = done.stdout.split("Job stats:")[1].split()
    total = int(stats[stats.index("total") + 1])
    # The default target and the summary are rules of their own.
    assert total == len(load_plan(config).nodes) + 2


def test_the_published_configs_share_data_encoders_and_features() -> None:
    shared = ("fetch_data", "records", "features")
    found = {
        name: {key for key in load_plan(ROOT / f"config/{name}.yaml").nodes if key[0] in shared}
        for name in ("paper", "paper-gemma9b", "paper-llama8b")
    }
    assert len(found["paper"]) == 15
    assert all(each == found["paper"] for each in found.values())


def test_published_interventions_train_nothing_anew_but_vision_saes() -> None:
    paper, edits = (
        set(load_plan(ROOT / f"config/{name}.yaml").nodes)
        for name in ("paper", "paper-interventions")
    )
    made = {stage for stage, _ in edits - paper}
    assert "train_vision_sae" in made
    assert not made & {"fetch_model", "fetch_sae", "fetch_data", "train_projector", "import_sae"}
