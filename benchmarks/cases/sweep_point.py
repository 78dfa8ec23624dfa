"""One more lambda in a sweep, run by the workflow, against the same from scratch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from benchmarks.case import Case, Limit, Size, seconds
from benchmarks.stages import stage_costs
from tests.workflow_run import ROOT, snakemake

# Stages that make the stand-in models; with real checkpoints these are downloads.
STAND_INS = ("train_encoder", "train_llm", "train_sae")


def cases(size: Size, folder: Path) -> Iterator[Case]:
    """Yield the case with all jobs, and the one without the stand-in models' training."""
    name = "smoke" if size == "tiny" else "default"
    scratch, before = _run(folder, name, [1])
    marginal, after = _run(folder, name, [1, 2])
    check(before, after)
    projector = after["train_projector"] - before["train_projector"]
    limit = Limit(projector, "the projector's training alone")
    work = f"config/{name}.yaml with one vision and one language model; snakemake --cores 2"
    # Once each: a second time would find nothing to do.
    yield Case(
        "one more lambda, whole run",
        f"{work}, wall time; usual: the first lambda, from an empty folder",
        ours=lambda: marginal,
        usual=lambda: scratch,
        bar=3,
        runs=1,
        limit=limit,
        profile=lambda: (_dearest(before), _dearest(_added(before, after))),
    )
    yield Case(
        "one more lambda, models given",
        f"{work}, the jobs' seconds without {', '.join(STAND_INS)}",
        ours=lambda: _sum(_added(before, after)),
        usual=lambda: _sum(before),
        runs=1,
        limit=limit,
    )


def check(before: dict[str, float], after: dict[str, float]) -> None:
    """Raise unless the second run trained a projector, and no model or feature anew."""
    added = _added(before, after)
    wrong = sorted({*STAND_INS, "features"} & set(added))
    if wrong or "train_projector" not in added:
        raise AssertionError(f"one more lambda ran {sorted(added)}")


def _run(folder: Path, name: str, weights: Sequence[float]) -> tuple[float, dict[str, float]]:
    """Run the config with these lambdas; return wall seconds, and what the jobs of each stage have
    taken in all runs, seconds."""
    config: dict[str, Any] = yaml.safe_load((ROOT / "config" / f"{name}.yaml").read_text())
    for models in ("encoders", "llms"):
        first = next(iter(config[models]))
        config[models] = {first: config[models][first]}
    config["sweep"] = [{"sae_weights": list(weights), "seeds": [0]}]
    config.pop("interventions", None)
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    taken = seconds(lambda: snakemake(folder, "--scheduler", "greedy", config=path))
    costs = stage_costs(folder / "results")
    return taken, {stage: sum(s for s, _ in jobs) for stage, jobs in costs.items()}


def _added(before: dict[str, float], after: dict[str, float]) -> dict[str, float]:
    added = {stage: spent - before.get(stage, 0.0) for stage, spent in after.items()}
    return {stage: spent for stage, spent in added.items() if spent > 0}


def _sum(spent: dict[str, float]) -> float:
    return sum(each for stage, each in spent.items() if stage not in STAND_INS)


def _dearest(spent: dict[str, float]) -> str:
    first = sorted(spent.items(), key=lambda item: -item[1])[:4]
    return ", ".join(f"{stage} {each:.0f} s" for stage, each in first)
