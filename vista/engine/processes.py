"""Running one job in several processes, started by torchrun, on several machines by srun.

The process of the job holds the artifact's lock, waits and publishes. Each of the others runs the
same stage in the same work folder and reads its rank from the environment that torchrun sets.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from pathlib import Path

from vista.engine.artifacts import Artifact, open_artifact
from vista.engine.job import Job
from vista.errors import UserError

# Folder of the processes' error messages, beside the checkpoints, which are not published.
_ERRORS = "errors"


def is_rank() -> bool:
    """Whether torchrun started this process."""
    return "RANK" in os.environ


def run_ranks(job: Job, processes: int, machines: int) -> None:
    """Run the stage of `job` in `processes` processes on each of `machines` machines.

    Their output goes to standard error. Raises the UserError of a process, or one that says that a
    process died.
    """
    order = {
        "stage": job.stage,
        "settings": job.settings,
        "inputs": {role: _paths(source) for role, source in job.inputs.items()},
        "work": str(job.work),
        "threads": max(1, job.threads // processes),
        "watch": machines == 1,
    }
    errors = job.checkpoints / _ERRORS
    shutil.rmtree(errors, ignore_errors=True)
    command = [*_launcher(processes, machines), "-m", __name__, json.dumps(order)]
    # On one machine the processes end with this one, since their standard input ends. On several,
    # Slurm ends them with the job.
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as running:
        assert running.stdout is not None
        for line in running.stdout:
            sys.stderr.write(line)
    if running.returncode:
        messages = sorted(errors.glob("*"))
        raise UserError(
            messages[0].read_text()
            if messages
            else "one of the processes of the job died (see above which one, and how); run "
            "snakemake again to go on from the last checkpoint."
        )


def _launcher(processes: int, machines: int) -> list[str]:
    torchrun = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={processes}"]
    if machines == 1:
        return [*torchrun, "--standalone", "--local-addr=127.0.0.1"]
    if "SLURM_JOB_ID" not in os.environ:
        raise UserError(
            f"machines: {machines} needs a Slurm job of as many nodes, and this is none; set "
            "machines: 1, or run the workflow with a Slurm profile."
        )
    with socket.socket() as free:
        free.bind(("", 0))
        port = free.getsockname()[1]
    # The job's own step has its resources already; further steps share them.
    one_each = ["--overlap", f"--nodes={machines}", f"--ntasks={machines}", "--ntasks-per-node=1"]
    meeting = [f"--rdzv-endpoint={socket.gethostname()}:{port}", "--rdzv-backend=c10d"]
    name = f"--rdzv-id={os.environ['SLURM_JOB_ID']}-{port}"
    return ["srun", *one_each, *torchrun, f"--nnodes={machines}", *meeting, name]


def _paths(source: Artifact | list[Artifact]) -> str | list[str]:
    if isinstance(source, list):
        return [str(artifact.path) for artifact in source]
    return str(source.path)


def _open(paths: str | list[str]) -> Artifact | list[Artifact]:
    if isinstance(paths, list):
        return [open_artifact(Path(path)) for path in paths]
    return open_artifact(Path(paths))


def _end_with_the_job() -> None:
    with contextlib.suppress(OSError):
        sys.stdin.buffer.read()
    os._exit(1)


def main() -> None:
    """Run the stage that the command line orders, as one of the processes."""
    order = json.loads(sys.argv[1])
    if order["watch"]:
        threading.Thread(target=_end_with_the_job, daemon=True).start()
    inputs = {role: _open(paths) for role, paths in order["inputs"].items()}
    job = Job(order["stage"], order["settings"], inputs, Path(order["work"]), order["threads"])
    try:
        importlib.import_module(f"vista.stages.{job.stage}").run(job)
    except UserError as error:
        place = job.checkpoints / _ERRORS / os.environ["RANK"]
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(str(error))
        sys.exit(2)


if __name__ == "__main__":
    main()
