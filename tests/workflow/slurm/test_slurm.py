"""Jobs on a real Slurm: an array, a group, a requeue, a cancel; the bytes of a local run."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from slurm_server import Cluster
from workflow_run import ROOT, SMOKE, snakemake

from vista.plan import Plan, load_plan

PROFILE = ROOT / "workflow" / "profiles" / "slurm"
GENERIC = ROOT / "workflow" / "profiles" / "cluster-generic"
MADE = ("draw_world", "records", "train_encoder")
SUBMITTED = ("features", "probe")


@dataclass(frozen=True)
class SlurmJob:
    """One line of squeue. `comment` is what the executor names a job: its rule and its node."""

    id: str
    state: str
    memory: str
    comment: str


@dataclass(frozen=True)
class Run:
    """What a run on Slurm left, and a run of the same config without Slurm before it."""

    folder: Path
    local: Path
    plan: Plan
    jobs: list[SlurmJob]
    array: str


def targets(plan: Plan, *stages: str) -> list[str]:
    return [f"results/{n.path}/manifest.json" for n in plan.nodes.values() if n.stage in stages]


def squeue(cluster: Cluster) -> list[SlurmJob]:
    lines = cluster.call(
        "squeue", "--noheader", "--states=all", "--format=%i|%T|%m|%k"
    ).splitlines()
    return [SlurmJob(*line.split("|", 3)) for line in lines]


def array_at_work(cluster: Cluster, folder: Path) -> str:
    """Wait until both tasks of the array of features are writing; return the array's number."""
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline:
        running = sorted(job.id for job in squeue(cluster) if job.state == "RUNNING")
        writing = [path for path in folder.glob("results/.work/features/*") if path.is_dir()]
        if len(writing) == len(running) == 2:
            array, task = running[0].split("_")
            assert (running[1], task) == (f"{array}_2", "1")
            return array
        time.sleep(0.02)
    raise AssertionError(f"features were not started: {squeue(cluster)}")


@pytest.fixture(scope="module")
def run(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder, local = (tmp_path_factory.mktemp(name) for name in ("slurm", "local"))
    content = yaml.safe_load(SMOKE.read_text())
    content["data"]["scenes"] = {"train": 48, "validation": 4, "test": 12}
    for encoder in content["encoders"].values():
        encoder["source"]["steps"] = 2
        # Each asks for a GPU, and the node says that it has two.
        encoder["device"] = "auto"
    config = local / "small.yaml"
    config.write_text(yaml.safe_dump(content))
    plan = load_plan(config)
    snakemake(local, *targets(plan, *SUBMITTED), config=config)
    for stage in MADE:
        shutil.copytree(local / "results" / stage, folder / "results" / stage)
    command = [
        sys.executable, "-m", "snakemake", f"--snakefile={ROOT / 'Snakefile'}", "--cores=2",
        f"--directory={folder}", f"--configfile={config}", f"--workflow-profile={PROFILE}",
        "--slurm-array-jobs=features", "--slurm-init-seconds-before-status-checks=9",
        "--latency-wait=5", "--", *targets(plan, *SUBMITTED),
    ]  # fmt: skip
    path = f"{Path(sys.executable).parent}:{cluster.environment['PATH']}"
    environment = {**cluster.environment, "PATH": path, "PYTHONPATH": str(ROOT)}
    log = folder / "said.txt"
    with log.open("w") as file:
        process = subprocess.Popen(command, env=environment, cwd=folder, stdout=file, stderr=file)
        try:
            array = array_at_work(cluster, folder)
            cluster.call("scontrol", "requeue", f"{array}_1")
            cluster.call("scancel", f"{array}_2")
            assert process.wait(timeout=400) == 0, log.read_text()[-8000:]
        finally:
            process.kill()
            process.wait()
    assert "Restarts=1" in cluster.call("scontrol", "show", "job", f"{array}_1")
    return Run(folder, local, plan, squeue(cluster), array)


def test_a_requeued_and_a_cancelled_job_end_with_the_bytes_of_a_local_run(run: Run) -> None:
    for path in targets(run.plan, *SUBMITTED):
        assert (run.folder / path).read_bytes() == (run.local / path).read_bytes(), path


def test_slurm_starts_a_requeued_job_again_and_snakemake_submits_a_cancelled_one(run: Run) -> None:
    tasks = {job.id: job.state for job in run.jobs if job.id.startswith(f"{run.array}_")}
    assert tasks == {f"{run.array}_1": "COMPLETED", f"{run.array}_2": "CANCELLED"}
    again = [job for job in run.jobs if "rule_features" in job.comment and job.id not in tasks]
    # The profile gives a second try twice the memory.
    assert [(job.state, job.memory) for job in again] == [("COMPLETED", "48000M")]


def test_small_metrics_share_one_job(run: Run) -> None:
    assert len(targets(run.plan, "probe")) == 2
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
    probes = targets(run.plan, "probe")
    options = (f"--workflow-profile={GENERIC}", f"--cluster-generic-submit-cmd={submit}")
    snakemake(tmp_path, *options, "--", *probes, config=run.local / "small.yaml")
    assert len({job.id for job in squeue(cluster)} - before) == 1
    for path in probes:
        assert (tmp_path / path).read_bytes() == (run.local / path).read_bytes()
