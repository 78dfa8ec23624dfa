"""How long jobs took on this machine, against the forecast: from Snakemake's benchmark files."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from statistics import median

from vista.engine.forecast.need import Need
from vista.engine.forecast.needs import node_need
from vista.engine.forecast.shapes import Shapes, all_known
from vista.engine.node import Node

# Seconds in which a job with torch cannot have done its work: it found its artifact unchanged and
# put the manifest back, which takes 0.5 to 1 s, since nothing heavy is loaded. A job without torch
# takes about as long either way.
KEPT = 2.0


@dataclass(frozen=True)
class Calibration:
    """Ratios of measured to forecast seconds: medians over the jobs of a stage, and over all jobs
    for stages of which none was measured. `jobs` counts the measured ones."""

    by_stage: Mapping[str, float] = field(default_factory=dict)
    overall: float = 1.0
    jobs: int = 0

    def scaled(self, node: Node, shapes: Shapes) -> Need:
        """Return what the jobs of a node take, their seconds scaled."""
        need = node_need(node, shapes)
        if need.seconds is None:
            return need
        return replace(need, seconds=self.by_stage.get(node.stage, self.overall) * need.seconds)


def calibrate(shapes: Shapes) -> Calibration:
    """Return the ratios for the nodes of a plan that have benchmark files in its results folder.

    Reads these files alone; one that is damaged, or of a job that did no work, counts as absent.
    """
    folder = shapes.results / "benchmarks"
    if not folder.is_dir():
        return Calibration()
    ratios: dict[str, list[float]] = defaultdict(list)
    for node in shapes.nodes:
        measured = node_seconds(folder / node.stage, node)
        forecast = node_need(node, shapes).seconds if measured else None
        if measured and forecast and not measured < KEPT < forecast:
            ratios[node.stage].append(measured / forecast)
    every = list(chain.from_iterable(ratios.values()))
    if not every:
        return Calibration()
    by_stage = {stage: median(values) for stage, values in ratios.items()}
    return Calibration(by_stage, median(every), len(every))


def node_seconds(folder: Path, node: Node) -> float | None:
    """Return the seconds of all jobs that made a node; None unless each has its benchmark file."""
    names = [node.folder]
    if node.jobs > 1:
        names += [f"{node.folder}.{part}of{node.jobs}" for part in range(1, node.jobs + 1)]
    seconds = all_known(job_seconds(folder / f"{name}.tsv") for name in names)
    return None if seconds is None else sum(seconds)


def job_seconds(path: Path) -> float | None:
    """Return the wall seconds in a benchmark file; None where it is absent or damaged."""
    try:
        header, row = path.read_text(encoding="utf-8").splitlines()[:2]
        seconds = float(dict(zip(header.split("\t"), row.split("\t"), strict=True))["s"])
    except (OSError, ValueError, KeyError):
        return None
    return seconds if 0 < seconds < math.inf else None
