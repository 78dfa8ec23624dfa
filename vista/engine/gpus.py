"""Choosing GPUs for a job: Snakemake counts GPUs, but does not assign them.

A job holds a lock on each card that it uses until it ends; the kernel releases the locks of a dead
process. Cards are identified by UUID, since inside a Slurm job every card can be number 0. If
CUDA_VISIBLE_DEVICES is set (Slurm sets it), the job chooses among the cards that it names.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vista.errors import UserError

VISIBLE = "CUDA_VISIBLE_DEVICES"
# If this variable is set, jobs share cards and do not wait.
SHARE = "VISTA_SHARE_GPUS"
# Shared by all users of the machine, and not cleaned up while a job runs, unlike /tmp.
LOCKS = Path("/run/lock") if os.access("/run/lock", os.W_OK) else Path("/tmp")


@dataclass(frozen=True)
class Wanted:
    """The cards that a job asks for: the visible ones at `places`, else any `count`.

    `count` None means all.
    """

    count: int | None
    places: tuple[int, ...] = ()


def wanted(options: Mapping[str, Mapping[str, Any]]) -> Wanted:
    """Return what the options of a job's parts (`vista.engine.node.OPTIONS`) ask for.

    A device map spreads a model over all cards. `cuda:1` names a card; `auto` beside it means
    the first one. On several machines Slurm chooses and the job asks for none.
    """
    training = options.get("training", {})
    if int(training.get("machines", 1)) > 1:
        return Wanted(0)
    if any(part.get("device_map") is not None for part in options.values()):
        return Wanted(None)
    devices = {str(part.get("device", "cpu")) for part in options.values()}
    devices = {device for device in devices if device == "auto" or device.startswith("cuda")}
    if any(":" in device for device in devices):
        places = {int(device.partition(":")[2] or 0) for device in devices}
        return Wanted(len(places), tuple(sorted(places)))
    return Wanted(int(training.get("processes", 1)) if devices else 0)


@contextlib.contextmanager
def claimed(
    options: Mapping[str, Mapping[str, Any]], locks: Path = LOCKS, pause: float = 1.0
) -> Iterator[None]:
    """Lock the cards that a job asks for and hide the others from CUDA.

    Waits while other jobs hold too many, with a message. Does nothing if the job asks for none, if
    there is no card, or if VISTA_SHARE_GPUS is set. Call before torch is imported.

    `pause` is in seconds.

    Raises UserError if the job asks for more cards than there are.
    """
    request = wanted(options)
    cards = [] if request.count == 0 or os.environ.get(SHARE) else visible_cards()
    if not cards:
        yield
        return
    if request.places:
        # find_device reports a place without a card.
        choice = [cards[place] for place in request.places if place < len(cards)]
        count = len(choice)
    else:
        choice, count = cards, len(cards) if request.count is None else request.count
    if count > len(choice):
        raise UserError(
            f"projector.stages: `processes` asks for {count} GPUs, and {len(choice)} are visible "
            f"here; ask for fewer, or let {VISIBLE} name more."
        )
    before = os.environ.get(VISIBLE)
    with _held(choice, count, locks, pause) as held:
        if not request.places:
            os.environ[VISIBLE] = ",".join(held)
        try:
            yield
        finally:
            if before is None:
                os.environ.pop(VISIBLE, None)
            else:
                os.environ[VISIBLE] = before


def visible_cards() -> list[str]:
    """Return the UUIDs of the cards that CUDA sees, in its order; none without a driver."""
    present = _present_cards()
    named = os.environ.get(VISIBLE)
    if named is None or not present:
        return present
    visible = []
    for entry in map(str.strip, named.split(",")):
        if entry.isdigit() and int(entry) < len(present):
            visible.append(present[int(entry)])
        elif entry.startswith("GPU-"):
            # CUDA accepts the beginning of a UUID, too.
            visible += [card for card in present if card.startswith(entry)]
        elif entry.startswith("MIG-"):
            visible.append(entry)
        else:
            # Like CUDA: the first unknown name ends the list.
            break
    return visible


def _present_cards() -> list[str]:
    if shutil.which("nvidia-smi") is None:
        return []
    command = ["nvidia-smi", "--query-gpu=uuid", "--format=csv,noheader"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return [] if done.returncode else done.stdout.split()


@contextlib.contextmanager
def _held(cards: Sequence[str], count: int, locks: Path, pause: float) -> Iterator[list[str]]:
    """Hold the locks of `count` of the cards; while waiting, hold none."""
    announced = False
    while True:
        with ExitStack() as stack:
            held: list[str] = []
            for card in cards:
                if len(held) < count and _lock(locks / f"vista-{card.replace('/', '-')}", stack):
                    held.append(card)
            if len(held) == count:
                yield held
                return
        if not announced:
            print(
                f"waiting for {count} of {len(cards)} GPUs, which other jobs use; {SHARE}=1 shares "
                "them.",
                file=sys.stderr,
                flush=True,
            )
            announced = True
        # A random pause: two jobs that want two cards each must not block each other for ever.
        time.sleep(pause * random.uniform(0.5, 1.5))


def _lock(path: Path, stack: ExitStack) -> bool:
    """Lock `path` until the stack ends; return False if another process holds the lock."""
    # A lock needs read access only; files of other users allow no more.
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except FileNotFoundError:
        descriptor = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_NOFOLLOW, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return False
    stack.callback(os.close, descriptor)
    return True
