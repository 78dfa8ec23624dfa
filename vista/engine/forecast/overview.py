"""The forecast of a plan: stage by stage, and as text for a terminal."""

from __future__ import annotations

import json
import os
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vista.engine.artifacts import CHECKSUMS
from vista.engine.forecast import formulas
from vista.engine.forecast.calibration import calibrate
from vista.engine.forecast.missing import free_bytes, missing
from vista.engine.forecast.need import DONE, START, TORCH_START, Need
from vista.engine.forecast.shapes import Shapes, job_count
from vista.engine.node import Node
from vista.engine.plan import Plan


@dataclass(frozen=True)
class Amount:
    """A sum over jobs, `unknown` of which could not be estimated."""

    known: float = 0.0
    unknown: int = 0


@dataclass(frozen=True)
class StageForecast:
    """One stage: jobs to do, artifacts done, bytes on disk of both, bytes of main memory that are
    held and bytes on a GPU (of the largest job, on each of its GPUs), seconds (one job after the
    other)."""

    stage: str
    todo: int
    done: int
    disk_done: float
    disk: Amount
    held: Amount
    memory: Amount
    seconds: Amount


@dataclass(frozen=True)
class Forecast:
    """Everything that `vista plan` tells about a config.

    `measured` finished jobs scaled its times. `wall` is a lower bound of the seconds of the run on
    this machine, which runs `slots` jobs at a time; jobs of unknown time are left out.
    """

    name: str
    results: str
    stages: Sequence[StageForecast]
    total: StageForecast
    free: int
    missing: Sequence[str]
    measured: int
    slots: int
    wall: float


def forecast(
    plan: Plan, order: Iterable[str], cores: int | None = None, refused: Sequence[str] = ()
) -> Forecast:
    """Return the forecast of a plan, its stages in the `order` of the pipeline, on a machine of so
    many `cores`, those of this one by default. `refused` joins what is missing.

    Reads what is finished (manifests, checksums, sizes of models and tables, benchmark files of
    jobs), loads nothing else.
    """
    results = Path(plan.results)
    shapes = Shapes(results, plan.nodes.values(), plan.config.threads)
    by_stage: dict[str, list[Node]] = {stage: [] for stage in order}
    for node in shapes.nodes:
        by_stage.setdefault(node.stage, []).append(node)
    times = calibrate(shapes)
    needs = {node.id: times.scaled(node, shapes) for node in shapes.nodes if not shapes.done(node)}
    stages = [_stage(name, nodes, results, needs) for name, nodes in by_stage.items() if nodes]
    total = StageForecast(
        "total",
        sum(stage.todo for stage in stages),
        sum(stage.done for stage in stages),
        sum(stage.disk_done for stage in stages),
        _sum(stage.disk for stage in stages),
        _largest(stage.held for stage in stages),
        _largest(stage.memory for stage in stages),
        _sum(stage.seconds for stage in stages),
    )
    lines, free = [*missing(shapes), *refused], free_bytes(results)
    if total.disk.known > free:
        lines.append(
            f"{size(total.disk.known - free)} of disk: {size(free)} are free where {plan.results} "
            "is. Free some, or set `results` to a folder on a larger disk."
        )
    slots = max(1, (cores or os.cpu_count() or 1) // plan.config.threads)
    wall = wall_seconds(shapes.nodes, needs, slots)
    return Forecast(
        plan.config.name, plan.results, stages, total, free, lines, times.jobs, slots, wall
    )


def _stage(
    name: str, nodes: Sequence[Node], results: Path, by_node: Mapping[str, Need]
) -> StageForecast:
    done = [node for node in nodes if node.id not in by_node]
    todo = [node for node in nodes if node.id in by_node]
    needs = [by_node[node.id] for node in todo]
    return StageForecast(
        name,
        sum(map(job_count, todo)),
        len(done),
        sum(_size_of(results / node.path) for node in done),
        _sum(_amount(need.disk) for need in needs),
        _largest(_amount(need.held) for need in needs),
        _largest(_amount(need.memory) for need in needs),
        _sum(_amount(need.seconds) for need in needs),
    )


def wall_seconds(nodes: Iterable[Node], needs: Mapping[str, Need], slots: int) -> float:
    """Return a lower bound of the seconds of jobs, `slots` at a time, those on a GPU one.

    `nodes` stand behind their inputs; `needs` has those to do, by their ids.

    The largest of: the longest chain of jobs that wait for each other, all jobs over the slots, and
    the jobs on a GPU. Without GPUs no schedule that leaves no slot idle takes twice as long.
    """
    end: dict[str, float] = {}
    total = on_gpu = 0.0
    for node in nodes:
        seconds = needs.get(node.id, DONE).seconds or 0.0
        ahead = max((end[parent.id] for parent in node.parents()), default=0.0)
        end[node.id] = ahead + seconds / node.jobs
        total += seconds
        on_gpu += seconds * (node.gpus > 0)
    return max(total / slots, on_gpu, *end.values())


def _size_of(folder: Path) -> float:
    """Bytes of a finished artifact as its checksums list them; 0 where they cannot be read."""
    try:
        listed = json.loads((folder / CHECKSUMS).read_text(encoding="utf-8"))
        return float(sum(file["bytes"] for file in listed.values()))
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return 0.0


def _amount(value: float | None) -> Amount:
    return Amount(0.0, 1) if value is None else Amount(value)


def _sum(amounts: Iterable[Amount]) -> Amount:
    terms = list(amounts)
    return Amount(sum(term.known for term in terms), sum(term.unknown for term in terms))


def _largest(amounts: Iterable[Amount]) -> Amount:
    terms = list(amounts)
    known = max((term.known for term in terms), default=0.0)
    return Amount(known, sum(term.unknown for term in terms))


def listing(plan: Plan) -> str:
    """Return one line an artifact, `done` or `todo`, and how many are to make.

    Done is what has a manifest; whether code changed since is the workflow's to tell.
    """
    shapes = Shapes(Path(plan.results), plan.nodes.values())
    lines = [
        f"{'done' if shapes.done(node) else 'todo':5} {plan.results}/{node.path}"
        for node in shapes.nodes
    ]
    todo = sum(not shapes.done(node) for node in shapes.nodes)
    return "\n".join([*lines, f"{len(shapes.nodes)} artifacts, {todo} to make."])


HEADER = ("stage", "to do", "done", "disk done", "disk to come", "memory", "GPU memory", "time")


def render(forecast: Forecast) -> str:
    """Return the forecast as text: a table by stage, what is missing, what was assumed."""
    rows = [HEADER, *map(_row, forecast.stages), _row(forecast.total)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADER))]
    lines = [
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    rule = "-" * max(map(len, lines))
    table = [lines[0], rule, *lines[1:-1], rule, lines[-1]]
    free = f"{forecast.results}: {size(forecast.free)} of disk are free."
    lacking = [f"Missing: {line}" for line in forecast.missing] or ["Missing: nothing."]
    return "\n".join([*table, "", free, *lacking, *_times(forecast), "", *_assumed()])


def _times(forecast: Forecast) -> list[str]:
    """What the times of jobs to do come to on this machine, and what scaled them."""
    lines = []
    if forecast.wall and forecast.slots > 1:
        lines.append(
            f"On this machine, {forecast.slots} jobs at a time (one on a GPU): at least "
            f"{duration(forecast.wall)}."
        )
    if forecast.wall and forecast.measured:
        jobs = f"{forecast.measured} finished job{'s' * (forecast.measured > 1)}"
        lines.append(f"Times are scaled by {jobs} of this machine.")
    return lines


def _row(stage: StageForecast) -> tuple[str, ...]:
    return (
        stage.stage,
        str(stage.todo),
        str(stage.done),
        size(stage.disk_done) if stage.done else "-",
        _shown(stage.disk, size),
        _shown(stage.held, size),
        _shown(stage.memory, size),
        _shown(stage.seconds, duration),
    )


def _shown(amount: Amount, form: Callable[[float], str]) -> str:
    if amount.unknown:
        return f"> {form(amount.known)}" if amount.known else "unknown"
    return form(amount.known) if amount.known else "-"


def _assumed() -> list[str]:
    """The assumptions, in one paragraph."""
    text = (
        f"Assumed, not measured: {formulas.TEXT_TOKENS} text tokens a sample where the data do not "
        "tell, and answers that end; "
        f"{formulas.L0:g} active latents a token of pretrained SAEs, {formulas.BYTES_A_VALUE:g} "
        "bytes each, twice (without the SAE term far more may fire: published is a quarter of the "
        f"dictionary in block 0); a GPU that reaches {formulas.SHARE:.0%} of an H200's dense peak "
        f"({formulas.PEAK['bfloat16'] / 1e12:g} TFLOP/s in 16 bits, "
        f"{formulas.PEAK['float32'] / 1e12:g} in float32, in which SAEs run); "
        f"{formulas.CPU_RATE / 1e9:g} GFLOP/s a CPU thread, "
        f"{formulas.PRETRAINED_CPU_RATE / 1e9:g} of pretrained models; {START:g} s to start a job, "
        f"{TORCH_START:g} s with torch; n processes of one training n times as fast, without "
        "downloads and most of what metrics compute. The table's times are those of jobs one after "
        "the other. Memory: what the largest job holds beside libraries, models and a "
        "batch, where that is much. GPU memory is an upper estimate of the largest job, with "
        "samples of full length; whether this machine has a GPU is not checked. "
        '"unknown", and ">" before a '
        "figure: the size of some model, SAE, text or data set is not known before it is there."
    )
    return textwrap.wrap(text, 100)


def size(value: float) -> str:
    """Return bytes in units of 1000, e.g. 293 GB."""
    for unit in ("B", "kB", "MB", "GB"):
        if value < 999.5:
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:.3g} TB"


def duration(seconds: float) -> str:
    """Return a time in its largest fitting unit, e.g. 3.2 h."""
    if seconds < 99.5:
        return f"{max(seconds, 1):.0f} s"
    if seconds < 99.5 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.3g} h"
