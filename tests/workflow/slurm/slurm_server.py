"""A real Slurm of one node, for the tests alone: own folder, own ports, own munge."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue")
# Without cgroups and without an accounting database: what a container can run.
SLURM_CONF = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmdPort={node}
SlurmUser={user}
SlurmdUser={user}
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerParameters=sched_interval=1,batch_sched_delay=0
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=1
MinJobAge=300
MpiDefault=none
GresTypes=gpu
NodeName={host} NodeAddr=127.0.0.1 CPUs=4 RealMemory=1000000 Gres=gpu:2
PartitionName=all Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""
# Slurm needs only a device file to count a card and to name it in CUDA_VISIBLE_DEVICES.
GRES_CONF = "Name=gpu File=/dev/null\nName=gpu File=/dev/zero\n"


@dataclass(frozen=True)
class Cluster:
    """A running Slurm: `environment` makes its commands speak to it."""

    environment: dict[str, str]

    def call(self, *command: str) -> str:
        done = subprocess.run(
            command, env=self.environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{command}: {done.stderr}"
        return done.stdout


def program(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")


@contextmanager
def started(folder: Path) -> Iterator[Cluster]:
    host = socket.gethostname().split(".")[0]
    (folder / "state").mkdir()
    (folder / "spool").mkdir()
    (folder / "munge.key").write_bytes(os.urandom(128))
    (folder / "munge.key").chmod(0o600)
    # The socket is for other processes to find.
    folder.chmod(0o755)
    controller, node = _free_ports()
    text = SLURM_CONF.format(
        host=host, controller=controller, node=node, user=getpass.getuser(), folder=folder
    )
    (folder / "slurm.conf").write_text(text)
    (folder / "gres.conf").write_text(GRES_CONF)
    # Inside a job the executor drops Slurm's variables, this one too, before it calls srun.
    srun = folder / "bin" / "srun"
    srun.parent.mkdir()
    srun.write_text(f'#!/bin/sh\nSLURM_CONF={folder}/slurm.conf exec {program("srun")} "$@"\n')
    srun.chmod(0o755)
    environment = {
        **os.environ,
        "SLURM_CONF": str(folder / "slurm.conf"),
        "PATH": f"{srun.parent}:{os.environ['PATH']}",
    }
    munge = [f"--{name}={folder}/munge.{name.split('-')[0]}" for name in ("socket", "key-file")]
    munge += [f"--{name}-file={folder}/munge.{name}" for name in ("pid", "log", "seed")]
    commands = (["munged", "--foreground", "--force", *munge], ["slurmctld", "-D"],
                ["slurmd", "-D", "-N", host])  # fmt: skip
    with ExitStack() as stack:
        for command in commands:
            path = program(command[0])
            assert path is not None
            log = stack.enter_context((folder / f"{command[0]}.log").open("w"))
            process = subprocess.Popen(
                [path, *command[1:]], env=environment, stdout=log, stderr=log
            )
            stack.callback(_stop, process)
            if command[0] == "munged":
                _wait_for((folder / "munge.socket").exists, folder)
        cluster = Cluster(environment)

        def idle() -> bool:
            done = subprocess.run(
                ["sinfo", "-h", "-o", "%T"],
                env=environment,
                capture_output=True,
                text=True,
                check=False,
            )
            return done.stdout.strip() == "idle"

        _wait_for(idle, folder)
        yield cluster


def _wait_for(ready: Callable[[], bool], folder: Path) -> None:
    deadline = time.monotonic() + 120
    while not ready():
        logs = {path.name: path.read_text()[-2000:] for path in folder.glob("*.log")}
        assert time.monotonic() < deadline, f"Slurm does not start: {logs}"
        time.sleep(0.1)


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(timeout=60)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _free_ports() -> tuple[int, int]:
    with socket.socket() as first, socket.socket() as second:
        first.bind(("", 0))
        second.bind(("", 0))
        return first.getsockname()[1], second.getsockname()[1]
