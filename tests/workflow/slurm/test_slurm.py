"""Jobs on a real Slurm: parts, a group, a requeue, a cancel; the bytes of a local run."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from slurm_server import Cluster
from workflow_run import ROOT, SMOKE, snakemake

from vista.engine.plan import Plan, load_plan

PROFILE = ROOT / "workflow" / "profiles" / "slurm"
GENERIC = ROOT / "workflow" / "profiles" / "cluster-generic"
MADE = ("draw_world", "records", "train_encoder", "text", "train_llm")
# Three shards of features, of which the second part has two; 64 steps of a projector.
SCENES = {"train": 600, "validation": 4, "test": 36}
TRAINING = {"steps": 64, "batch_size": 8, "checkpoint_every": 16}


@dataclass(frozen=True)
class SlurmJob:
    """One line of squeue. `comment` is what the executor names a job: its rule and its node."""

    id: str
    state: str
    memory: str
    comment: str


@dataclass(frozen=True)
class Run:
    """What a run on Slurm left, and a run of the same config without Slurm before it.

    `cancelled` and `requeued` are jobs of the second part of features and of a projector, `step`
    is the checkpoint that the projector had.
    """

    folder: Path
    local: Path
    targets: list[str]
    jobs: list[SlurmJob]
    cancelled: str
    requeued: str
    step: int

    def log(self, stage: str, name: str) -> str:
        (path,) = (self.folder / "results" / "logs" / stage).glob(name)
        return path.read_text()


def targets(plan: Plan, *wanted: str) -> list[str]:
    """Return the manifests of the artifacts whose paths start so."""
    paths = [node.path for node in plan.nodes.values()]
    return [f"results/{path}/manifest.json" for path in paths if path.startswith(wanted)]


def squeue(cluster: Cluster) -> list[SlurmJob]:
    lines = cluster.call(
        "squeue", "--noheader", "--states=all", "--format=%i|%T|%m|%k"
    ).splitlines()
    return [SlurmJob(*line.split("|", 3)) for line in lines]


def stop(folder: Path, *words: str) -> str:
    """Stop the process of a stage where it is, so that nothing but the end of its job can follow;
    return that job."""
    for process in Path("/proc").glob("[0-9]*"):
        # Processes end, some are others', and those of the kernel have no command.
        with contextlib.suppress(OSError, ValueError):
            program, *options = (process / "cmdline").read_text().split("\0")[1:]
            here = program.endswith("/vista") and (process / "cwd").readlink() == folder
            if here and {*words} <= {*options}:
                os.kill(int(process.name), signal.SIGSTOP)
                environment = (process / "environ").read_text()
                return environment.split("SLURM_JOB_ID=")[1].split("\0")[0]
    raise AssertionError(f"{words} has ended before it could be stopped")


def interrupted(cluster: Cluster, folder: Path) -> tuple[str, str, int]:
    """Cancel a part of features after a shard and requeue a projector after a checkpoint; return
    their jobs, and the checkpoint's step."""
    work = folder / "results" / ".work"
    cancelled = requeued = ""
    deadline = time.monotonic() + 180
    while not (cancelled and requeued):
        assert time.monotonic() < deadline, squeue(cluster)
        time.sleep(0.005)
        if not cancelled and any(work.glob("features/*/features.zarr/features/done/00001.json")):
            cancelled = stop(folder, "features", "2/2")
            cluster.call("scancel", cancelled)
        if not requeued and any(work.glob("train_projector/*/checkpoints/step-*")):
            requeued = stop(folder, "train_projector")
            steps = [path.name for path in work.glob("train_projector/*/checkpoints/step-*")]
            cluster.call("scontrol", "requeue", requeued)
    return cancelled, requeued, int(max(steps).removeprefix("step-"))


@pytest.fixture(scope="module")
def run(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder, local = (tmp_path_factory.mktemp(name) for name in ("slurm", "local"))
    content = yaml.safe_load(SMOKE.read_text())
    content["data"]["scenes"] = SCENES
    content["sweep"] = [{"sae_weights": [0], "seeds": [0]}]
    content["projector"]["stages"] = [TRAINING]
    content["llms"]["gemma2"]["model"]["source"]["steps"] = 2
    for encoder in content["encoders"].values():
        encoder["source"]["steps"] = 2
        # Each asks for a GPU, and the node says that it has two.
        encoder["device"] = "auto"
    config = local / "small.yaml"
    config.write_text(yaml.safe_dump(content))
    plan = load_plan(config)
    wanted = targets(plan, "features/dinov2", "probe/", "train_projector/siglip")
    snakemake(local, *wanted, config=config)
    content["encoders"]["dinov2"] |= {"jobs": 2, "batch_size": 8}
    config = folder / "parts.yaml"
    config.write_text(yaml.safe_dump(content))
    for stage in (*MADE, "features"):
        shutil.copytree(local / "results" / stage, folder / "results" / stage)
    shutil.rmtree((folder / targets(plan, "features/dinov2")[0]).parent)
    command = [
        sys.executable, "-m", "snakemake", f"--snakefile={ROOT / 'Snakefile'}", "--cores=2",
        f"--directory={folder}", f"--configfile={config}", f"--workflow-profile={PROFILE}",
        # The executor looks after a second, and then at longer and longer intervals.
        "--slurm-init-seconds-before-status-checks=1", "--latency-wait=5", "--", *wanted,
    ]  # fmt: skip
    path = f"{Path(sys.executable).parent}:{cluster.environment['PATH']}"
    environment = {**cluster.environment, "PATH": path, "PYTHONPATH": str(ROOT)}
    log = folder / "said.txt"
    with log.open("w") as file:
        process = subprocess.Popen(command, env=environment, cwd=folder, stdout=file, stderr=file)
        try:
            interruptions = interrupted(cluster, folder)
            assert process.wait(timeout=400) == 0, log.read_text()[-8000:]
        finally:
            process.kill()
            process.wait()
    return Run(folder, local, wanted, squeue(cluster), *interruptions)


def test_requeued_and_cancelled_jobs_end_with_the_bytes_of_a_local_run(run: Run) -> None:
    for path in run.targets:
        assert (run.folder / path).read_bytes() == (run.local / path).read_bytes(), path


def test_slurm_starts_a_requeued_job_again_and_snakemake_submits_a_cancelled_one(
    run: Run, cluster: Cluster
) -> None:
    assert "Restarts=1" in cluster.call("scontrol", "show", "job", run.requeued)
    (projector,) = [job for job in run.jobs if "train_projector" in job.comment]
    assert (projector.id, projector.state) == (run.requeued, "COMPLETED")
    parts = {job.id: job for job in run.jobs if "features_part" in job.comment}
    assert parts.pop(run.cancelled).state == "CANCELLED"
    assert [job.state for job in parts.values()] == ["COMPLETED", "COMPLETED"]
    # The profile gives a second try twice the memory.
    once, twice = sorted(int(job.memory.removesuffix("M")) for job in parts.values())
    assert twice == 2 * once


def test_a_part_goes_on_after_its_last_shard_and_a_projector_at_its_checkpoint(run: Run) -> None:
    # Of its two shards, the one of 256 images was there.
    left = sum(SCENES.values()) - 2 * 256
    assert f"features: {left} images" in run.log("features", "dinov2-*.2of2.log")
    steps = TRAINING["steps"] - run.step
    assert f"projector: {steps}/{steps} steps" in run.log("train_projector", "siglip-*.log")


def test_small_metrics_share_one_job(run: Run) -> None:
    assert len([path for path in run.targets if "/probe/" in path]) == 2
    assert len([job for job in run.jobs if "probe" in job.comment]) == 1


def test_the_generic_profile_runs_jobs_by_a_command_of_the_users(
    run: Run, cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_CONF", cluster.environment["SLURM_CONF"])
    for stage in (*MADE, "features"):
        shutil.copytree(run.local / "results" / stage, tmp_path / "results" / stage)
    before = {job.id for job in squeue(cluster)}
    submit = (
        "sbatch --parsable --output=/dev/null --mem={resources.mem_mb} --time={resources.runtime} "
        "--cpus-per-task={threads} --gpus={resources.gpu}"
    )
    probes = [path for path in run.targets if "/probe/" in path]
    options = (f"--workflow-profile={GENERIC}", f"--cluster-generic-submit-cmd={submit}")
    soon = "--seconds-between-status-checks=1"
    snakemake(tmp_path, *options, soon, "--", *probes, config=run.local / "small.yaml")
    assert len({job.id for job in squeue(cluster)} - before) == 1
    for path in probes:
        assert (tmp_path / path).read_bytes() == (run.local / path).read_bytes()
