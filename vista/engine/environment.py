"""The environment variables of a job, set before numeric libraries read them."""

from __future__ import annotations

import os


def prepare(threads: int, *, offline: bool) -> None:
    """Set the environment of this process: `threads` CPU threads, and no network if `offline`.

    The libraries read it when they are first imported.
    """
    if offline:
        os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = str(threads)
    # A thread that waits for the others sleeps. Otherwise it spins, and where other programs use
    # the cores, it spins on the core that the others need: docs/speed.md has the figures.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
