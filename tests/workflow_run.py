"""The project's workflow, started as a user starts it, and the jobs that it says it has to run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
SMOKE = ROOT / "config" / "smoke.yaml"


def snakemake(
    folder: Path,
    *options: str,
    config: Path = SMOKE,
    checkout: Path = ROOT,
    ok: bool = True,
    snakefile: Path | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run the Snakefile (or `snakefile`) and the package of `checkout` in a folder."""
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(checkout),
    }
    command = [
        sys.executable, "-m", "snakemake", "--snakefile", str(snakefile or checkout / "Snakefile"),
        "--cores", "2", "--directory", str(folder), f"--configfile={config}", *options,
    ]  # fmt: skip
    # Python looks into its working directory first, which must not be another checkout.
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment, cwd=folder, check=False
    )
    assert (done.returncode == 0) == ok, done.stdout[-2000:] + done.stderr[-8000:]
    return done


def jobs(done: subprocess.CompletedProcess[str]) -> dict[str, int]:
    """Return the number of jobs of each rule out of Snakemake's table; {} for nothing to do."""
    text = done.stdout + done.stderr
    if "Nothing to be done" in text:
        return {}
    lines = text.split("Job stats:")[1].split("total")[0].splitlines()[3:]
    found = {line.split()[0]: int(line.split()[1]) for line in lines if line.strip()}
    return {rule: n for rule, n in found.items() if rule not in ("default", "all", "summary")}
