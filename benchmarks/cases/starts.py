"""What it costs to begin: a workflow with nothing to do, and a metric's job on little data."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.case import Case, Limit, Size, seconds
from benchmarks.cases.latent_store import LAYER, draw_latents, write_sparse
from tests.finished_plan import publish_all
from tests.workflow_run import ROOT, jobs, snakemake
from vista.data.records import Box, Object, Record, write_records
from vista.engine.artifacts import Provenance, publishing
from vista.engine.plan import load_plan
from vista.metrics.matching_rate import MatchingSettings
from vista.sae.label_table import LatentLabels, write_labels
from vista.store.latents import LatentWriter

NAMES = ("cat", "dog", "cow", "bus", "pizza", "bird")
# Images, and how often the limits are measured.
SIZES = {"full": (400, 5), "tiny": (24, 1)}
# Patches on a side, latents, active ones a token: those of config/default.yaml.
SIDE, D_SAE, ACTIVE = 6, 384, 5
SETTINGS = {"mask": {"max_image_share": 1, "max_label_density": 1}}


def cases(size: Size, folder: Path) -> Iterator[Case]:
    """Yield the start of a metric's job and the workflow that has nothing to do."""
    n, starts = SIZES[size]
    results = folder / "metric"
    spec, share = write_inputs(results, n)
    numbers = map(str, count())

    def job() -> Path:
        manifest = results / "matching_rate" / next(numbers) / "manifest.json"
        order = ("--spec", json.dumps(spec), "--manifest", str(manifest))
        _python("-m", "vista.cli", "matching_rate", *order)
        return manifest.parent

    require_share(job(), share)
    bare, arrays, imports = (
        min(seconds(partial(_python, "-c", text)) for _ in range(starts))
        for text in (
            "pass",
            "import numpy, zarr",
            "import vista.cli, vista.metrics.matching_rate.stage",
        )
    )
    yield Case(
        "job of a metric, start to end",
        f"matching rate of {n} images, one layer of {D_SAE} latents",
        partial(seconds, job),
        bar=1.5,
        at_most=True,
        limit=Limit(bare, f"the interpreter's start; with numpy and zarr {arrays:.2f} s"),
        profile=lambda: ("", f"until the stage is imported {imports:.2f} s, without torch"),
    )

    # A workflow starts slowly, and tests/workflow/test_reruns.py has one with nothing to do.
    if size == "tiny":
        return
    config = ROOT / "config" / "default.yaml"
    n_jobs = finish(folder, config)

    def again() -> None:
        require_nothing_to_do(snakemake(folder, config=config))

    yield Case(
        "snakemake with nothing to do",
        f"config/{config.name}, {n_jobs} artifacts",
        partial(seconds, again),
        bar=5,
        at_most=True,
        limit=Limit(bare, "the interpreter's start"),
    )


def finish(folder: Path, config: Path) -> int:
    """Leave in `folder` what a run of the config leaves, empty artifacts; return their number."""
    plan = load_plan(config)
    publish_all(plan, folder / plan.results)
    for kind in ("csv", "parquet", "md"):
        (folder / plan.results / f"summary.{kind}").touch()
    # Snakemake's own records of the jobs, which it compares at every start.
    snakemake(folder, "--touch", "--forceall", config=config)
    return len(plan.nodes)


def write_inputs(results: Path, n: int) -> tuple[dict[str, Any], float]:
    """Publish what a matching rate of `n` images reads; return its job's order and rate at 1."""
    labels = [NAMES[s % len(NAMES)] for s in range(D_SAE)]
    shown = [NAMES[i % len(NAMES)] for i in range(n)]
    drawn = list(draw_latents(n, SIDE**2, D_SAE, ACTIVE))
    strongest = [int(latents_ts.max(0).argmax()) for latents_ts in drawn]
    share = np.mean([labels[s] == name for s, name in zip(strongest, shown, strict=True)])

    def records(work: Path) -> None:
        thing = Box(0, 0, 8, 8)
        write_records(
            work / "records.parquet",
            (
                Record(str(i), "test", f"{i}.png", 48, 48, objects=(Object(name, thing),))
                for i, name in enumerate(shown)
            ),
        )

    def latents(work: Path) -> None:
        ids, kinds = [str(i) for i in range(n)], {"image": SIDE**2}
        writer = LatentWriter(
            work / "latents.zarr", ids, (SIDE, SIDE), {LAYER: D_SAE}, kinds, k=D_SAE
        )
        for image, latents_ts in enumerate(drawn):
            write_sparse(writer, image, latents_ts)
        writer.finish(LAYER, "image", np.zeros(1))
        writer.close()

    def label_latents(work: Path) -> None:
        zeros, nothing = np.zeros(D_SAE, np.float32), ((),) * D_SAE
        table = LatentLabels(LAYER, "drawn", 1, tuple(labels), zeros, zeros, nothing)
        write_labels(work / "labels.parquet", table)

    # Labels must be of an SAE that the latents were read with.
    inputs: dict[str, dict[str, Any]] = {
        "records": {},
        "latents": {"saes": ["drawn"]},
        "label_latents": {"sae": "drawn"},
    }
    for write in (records, latents, label_latents):
        stage = write.__name__
        record = Provenance(stage, {}, inputs[stage], {}, {})
        with publishing(results, stage, "drawn", record) as work:
            assert work is not None
            write(work)
    paths = {"records": "records/drawn", "latents": "latents/drawn"}
    settings = MatchingSettings.model_validate(SETTINGS).model_dump(mode="json")
    order = {
        "settings": settings,
        "inputs": {**paths, "labels": ["label_latents/drawn"]},
        "modules": [],
    }
    return order, float(share)


def require_share(metric: Path, share: float) -> None:
    """Raise ValueError where a job found another matching rate at 1 than dense latents give."""
    (layer,) = json.loads((metric / "result.json").read_text())["layers"]
    found = {level["k"]: level["matching"]["value"] for level in layer["top"]}
    if not np.isclose(found[1], share):
        raise ValueError(f"the job found {found[1]}, the dense latents give {share}")


def require_nothing_to_do(done: subprocess.CompletedProcess[str]) -> None:
    """Raise ValueError where Snakemake ran a job."""
    if ran := jobs(done):
        raise ValueError(f"snakemake found work to do: {ran}")


def _python(*arguments: str) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run(
        [sys.executable, *arguments], check=True, env=environment, stdout=subprocess.DEVNULL
    )
