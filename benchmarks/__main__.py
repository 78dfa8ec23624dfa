"""Measure our stages against the usual way: `python -m benchmarks [PART ...]` (or `make bench`).

Writes benchmarks/results.json and RESULTS.md. With parts named, the others' figures stay.
Nothing else should run on the machine meanwhile.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import pkgutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import cases
from benchmarks.case import measure
from benchmarks.machine import describe
from benchmarks.results import markdown

FOLDER = Path(__file__).parent
PARTS = sorted(each.name for each in pkgutil.iter_modules(cases.__path__))


def main() -> int:
    """Run the parts and write the results."""
    # As a job of the workflow by default has it; read when torch is imported.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__.split(":")[0] + "."
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; all")
    parser.add_argument("--runs", type=int, default=7, help="turns of each case (default 7)")
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder of the results")
    arguments = parser.parse_args()
    if unknown := sorted(set(arguments.parts) - set(PARTS)):
        parser.error(f"no part {unknown[0]!r}; there are {', '.join(PARTS)}")
    path = arguments.out / "results.json"
    old: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    found: dict[str, Any] = {**old.get("parts", {})}
    for part in arguments.parts or PARTS:
        rows = []
        with tempfile.TemporaryDirectory(prefix="bench-") as folder:
            for case in importlib.import_module(f"benchmarks.cases.{part}").cases(
                "full", Path(folder)
            ):
                rows.append(measure(case, arguments.runs))
                print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
        found[part] = rows
        # After each part: a run that is stopped keeps what it has.
        content = {"machine": describe(), "parts": dict(sorted(found.items()))}
        path.write_text(json.dumps(content, indent=1) + "\n")
        (arguments.out / "RESULTS.md").write_text(markdown(arguments.out))
    return 0


if __name__ == "__main__":
    sys.exit(main())
