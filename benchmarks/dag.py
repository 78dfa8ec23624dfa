"""What it costs to build the workflow's DAG, by its size: `snakemake --dry-run` on nothing done.

    python benchmarks/dag.py [--jobs 1000 3000 10000]        writes benchmarks/dag.json

The sweep is that of config/default.yaml with more and more seeds. Time and memory are those of the
whole snakemake process, parsing, plan and digests of code included.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

from vista.engine.plan import load_plan

ROOT = Path(__file__).parents[1]


def sweep_of(jobs: int) -> dict[str, Any]:
    """Return the default config with as many seeds as make about that many jobs."""
    config = yaml.safe_load((ROOT / "config" / "default.yaml").read_text())
    config["interventions"] = None

    def with_seeds(n: int) -> dict[str, Any]:
        sweep = [{"sae_weights": [0, 1], "seeds": list(range(n))}]
        return {**config, "sweep": sweep}

    one, two = (len(load_plan(with_seeds(n)).nodes) for n in (1, 2))
    return with_seeds(max(1, round((jobs - one) / (two - one)) + 1))


def dry_run(config: dict[str, Any]) -> dict[str, float]:
    """Return jobs, seconds and peak MB of a dry run of one config."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "config.yaml"
        path.write_text(yaml.safe_dump(config))
        command = [
            *(sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile")),
            *("--directory", folder, f"--configfile={path}", "--cores", "2"),
            *("--scheduler", "greedy", "--dry-run", "--quiet", "all"),
        ]
        start = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=os.environ)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
    if status:
        raise SystemExit(f"the dry run failed with status {os.waitstatus_to_exitcode(status)}")
    jobs = len(load_plan(config).nodes)
    return {
        "jobs": jobs,
        "seconds": round(seconds, 2),
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 2),
        "peak_mb": round(usage.ru_maxrss / 1024),
        "ms_a_job": round(1e3 * seconds / jobs, 2),
    }


def main() -> int:
    """Measure each size and write benchmarks/dag.json."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, nargs="+", default=[1000, 3000, 10000])
    sizes = []
    for jobs in parser.parse_args().jobs:
        sizes.append(dry_run(sweep_of(jobs)))
        print(sizes[-1], flush=True)
    content = {"cores": os.cpu_count(), "sizes": sizes}
    (ROOT / "benchmarks" / "dag.json").write_text(json.dumps(content, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
