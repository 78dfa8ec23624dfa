"""RESULTS.md out of the JSON files beside it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.growth import growth_section

HEAD = """# Measured side by side

Made by `make bench` (`python -m benchmarks`) from `results.json`; do not edit. Our stage and the
usual way do the same work with the same weights on the same machine in turns, after one run of each
that does not count, and both sides' results are compared before. Ratio: usual / ours, the median
over n turns, with the least and the largest; "<=": ours / usual, or our cost alone.
The limit is what the machine would need at least, from its measured matrix product and copy.
"""


def markdown(folder: Path) -> str:
    """Return the page for the results in `folder`."""
    content = json.loads((folder / "results.json").read_text())
    machine = content["machine"]
    rows = [row for part in content["parts"].values() for row in part]
    lines = [
        HEAD,
        "Machine: " + ", ".join(f"{name} {value}" for name, value in machine.items()) + ".",
        "",
        "| case | work | usual | ours | ratio | spread | n | bar | met | limit |",
        "|---|---|--:|--:|--:|--:|--:|--:|---|---|",
        *map(_row, rows),
        "",
        "## Where the time goes",
        "",
        "| case | the usual way | ours |",
        "|---|---|---|",
        *(
            # Python's names of built-in functions look like HTML.
            f"| {row['case']} | {row['profile']['usual']} | {row['profile']['ours']} |".replace(
                "<", "&lt;"
            )
            for row in rows
            if row["profile"]["ours"]
        ),
    ]
    if (growth := folder / "growth.json").exists():
        lines += ["", growth_section(json.loads(growth.read_text())).rstrip()]
    lines += ["", *_dag(folder / "dag.json"), "", *_accelerator(folder / "gpu.json")]
    return "\n".join(lines) + "\n"


def _dag(path: Path) -> list[str]:
    """The cost of a dry run by the number of jobs (`python benchmarks/dag.py`)."""
    if not path.exists():
        return []
    return [
        "## Building the DAG",
        "",
        "| jobs | seconds | ms a job | peak memory |",
        "|--:|--:|--:|--:|",
        *(
            f"| {each['jobs']:,} | {each['seconds']} | {each['ms_a_job']} | {each['peak_mb']} MB |"
            for each in json.loads(path.read_text())["sizes"]
        ),
    ]


def _accelerator(path: Path) -> list[str]:
    """The published sizes on an accelerator (`python -m benchmarks.gpu`)."""
    head = "## The published sizes on an accelerator"
    if not path.exists():
        return [
            head,
            "",
            "**Open: not measured on any accelerator yet.** `python -m benchmarks.gpu` does it in "
            "one call of a few minutes; its code is tested at small sizes on a CPU. Bars: share of "
            "the bf16 peak >= 45 % without the SAE term, >= 40 % with it.",
        ]
    found = json.loads(path.read_text())
    lines = [head, "", f"{found['device']}, {found['dtype']}, {found['peak_tflops']} TFLOP/s."]
    lines += ["", "| part | batch | rates | share of peak | peak memory |", "|---|--:|---|--:|--:|"]
    for name, part in found["parts"].items():
        rates = ", ".join(
            f"{value:g} {key.removesuffix('_per_second')}/s"
            for key, value in part.items()
            if key.endswith("_per_second")
        )
        share = part.get("share_of_peak", "")
        lines.append(
            f"| {name} | {part.get('batch', '')} | {rates} | {share} | {part['peak_GiB']} GiB |"
        )
    return lines


def _row(row: dict[str, Any]) -> str:
    def cost(value: float | None) -> str:
        if value is None:
            return ""
        return _seconds(value) if row["unit"] == "s" else f"{value:,.0f} B"

    relation = "<=" if row["at_most"] else ">="
    absolute = row["usual"] is None
    ratio, low, high = (
        cost(value) if absolute else f"{value:.3g}" for value in (row["ratio"], *row["spread"])
    )
    bar = "" if row["bar"] is None else f"{relation} {cost(row['bar']) if absolute else row['bar']}"
    met = {True: "yes", False: "**no**", None: ""}[row["met"]]
    limit = "" if row["limit"] is None else f"{cost(row['limit']['cost'])}: {row['limit']['of']}"
    cells = (
        *(row["case"], row["work"], cost(row["usual"]), cost(row["ours"])),
        *(ratio, f"{low} .. {high}", row["n"], bar, met, limit),
    )
    return "| " + " | ".join(map(str, cells)) + " |"


def _seconds(value: float) -> str:
    return f"{value:.3g} s" if value >= 1 else f"{1e3 * value:.3g} ms"
