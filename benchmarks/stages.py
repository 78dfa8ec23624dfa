"""What each stage of a finished run cost: jobs, seconds and memory, from Snakemake's own records.

    python benchmarks/stages.py [RESULTS]        (default: results)

Snakemake writes one TSV a job into RESULTS/benchmarks/<stage>/: wall seconds and peak memory.
"""

from __future__ import annotations

import csv
import sys
from collections import defaultdict
from pathlib import Path


def stage_costs(results: Path) -> dict[str, list[tuple[float, float]]]:
    """Return for each stage the (wall seconds, peak resident MB) of its jobs."""
    costs: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for path in sorted(results.glob("benchmarks/*/*.tsv")):
        with path.open(newline="") as file:
            for row in csv.DictReader(file, delimiter="\t"):
                # Snakemake writes NA for a job that ended before it was first looked at.
                memory = 0.0 if row["max_rss"] in ("-", "NA") else float(row["max_rss"])
                costs[path.parent.name].append((float(row["s"]), memory))
    return dict(costs)


def main() -> int:
    """Print the table, dearest stage first."""
    results = Path(sys.argv[1] if len(sys.argv) > 1 else "results")
    costs = stage_costs(results)
    if not costs:
        print(f"{results}/benchmarks holds no record; run snakemake first.", file=sys.stderr)
        return 2
    print(f"{'stage':18}{'jobs':>6}{'seconds':>10}{'a job':>8}{'peak MB':>9}")
    totals = sorted(costs.items(), key=lambda item: -sum(s for s, _ in item[1]))
    for stage, jobs in totals:
        seconds = sum(s for s, _ in jobs)
        peak = max(memory for _, memory in jobs)
        print(f"{stage:18}{len(jobs):6}{seconds:10.1f}{seconds / len(jobs):8.1f}{peak:9.0f}")
    whole = sum(s for jobs in costs.values() for s, _ in jobs)
    print(f"{'all':18}{sum(map(len, costs.values())):6}{whole:10.1f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
