"""Which GPUs a job uses: Snakemake counts GPUs, but tells no job which one is its own.

A job holds a lock on each card that it uses until it ends, however it ends: the kernel drops a
dead process's locks. Cards are known by their UUID, since inside a Slurm job every card may be
number 0. What CUDA_VISIBLE_DEVICES already names (Slurm sets it) is the set to choose from.
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
# Set to anything, jobs share cards and nobody waits.
SHARE = "VISTA_SHARE_GPUS"
# Seen by all users of the machine, and never tidied up while a job runs, as /tmp may be.
LOCKS = Path("/run/lock") if os.access("/run/lock", os.W_OK) else Path("/tmp")


@dataclass(frozen=True)
class Wanted:
    """The cards that a job asks for: those at `places` of the visible ones, else any `count`.

    `count` None means all of them.
    """

    count: int | None
    places: tuple[int, ...] = ()


def wanted(options: Mapping[str, Mapping[str, Any]]) -> Wanted:
    """Return what the options of a job's parts (`vista.engine.node.OPTIONS`) ask for.

    A device map spreads a model over every card. `cuda:1` is the user's own choice of a card, and
    `auto` beside it is the first one. On several machines Slurm chooses: nothing is asked for.
    """
    training = options.get("training", {})
    if int(training.get("machines", 1)) > 1:
        return Wanted(0)
    if any(part.get("device_map") is not None for part in options.values()):
        return Wanted(None)
    devices = {str(part.get("device", "cpu")) for part in options.values()}
    devices = {each for each in devices if each == "auto" or each.startswith("cuda")}
    if any(":" in each for each in devices):
        places = {int(each.partition(":")[2] or 0) for each in devices}
        return Wanted(len(places), tuple(sorted(places)))
    return Wanted(int(training.get("processes", 1)) if devices else 0)


@contextlib.contextmanager
def claimed(
    options: Mapping[str, Mapping[str, Any]], locks: Path = LOCKS, pause: float = 1.0
) -> Iterator[None]:
    """Hold the cards that a job asks for, and show them alone to CUDA. Call before torch is loaded.

    Waits, and says so, while other jobs hold too many. Does nothing where the job asks for none,
    where there is no card, or where VISTA_SHARE_GPUS is set. `pause` is in seconds.

    Raises UserError where the job asks for more cards than there are.
    """
    asked = wanted(options)
    cards = [] if asked.count == 0 or os.environ.get(SHARE) else visible_cards()
    if not cards:
        yield
        return
    if asked.places:
        # find_device tells of a place that no card has.
        choice = [cards[place] for place in asked.places if place < len(cards)]
        count = len(choice)
    else:
        choice, count = cards, len(cards) if asked.count is None else asked.count
    if count > len(choice):
        raise UserError(
            f"projector.stages: `processes` asks for {count} GPUs, and {len(choice)} are visible "
            f"here; ask for fewer, or let {VISIBLE} name more."
        )
    before = os.environ.get(VISIBLE)
    with _held(choice, count, locks, pause) as held:
        if not asked.places:
            os.environ[VISIBLE] = ",".join(held)
        try:
            yield
        finally:
            if before is None:
                os.environ.pop(VISIBLE, None)
            else:
                os.environ[VISIBLE] = before


def visible_cards() -> list[str]:
    """Return the UUIDs of the cards that CUDA would show, in its order; none without a driver."""
    present = _present_cards()
    named = os.environ.get(VISIBLE)
    if named is None or not present:
        return present
    found = []
    for entry in map(str.strip, named.split(",")):
        if entry.isdigit() and int(entry) < len(present):
            found.append(present[int(entry)])
        elif entry.startswith("GPU-"):
            # CUDA takes the beginning of a UUID too.
            found += [card for card in present if card.startswith(entry)]
        elif entry.startswith("MIG-"):
            found.append(entry)
        else:
            # CUDA, too, looks no further than the first name that it does not know.
            break
    return found


def _present_cards() -> list[str]:
    if shutil.which("nvidia-smi") is None:
        return []
    command = ["nvidia-smi", "--query-gpu=uuid", "--format=csv,noheader"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return [] if done.returncode else done.stdout.split()


@contextlib.contextmanager
def _held(cards: Sequence[str], count: int, locks: Path, pause: float) -> Iterator[list[str]]:
    """Hold the locks of `count` of the cards; nobody waits with a lock in hand."""
    told = False
    while True:
        with ExitStack() as stack:
            held: list[str] = []
            for card in cards:
                if len(held) < count and _lock(locks / f"vista-{card.replace('/', '-')}", stack):
                    held.append(card)
            if len(held) == count:
                yield held
                return
        if not told:
            print(
                f"waiting for {count} of {len(cards)} GPUs, which other jobs use; {SHARE}=1 shares "
                "them.",
                file=sys.stderr,
                flush=True,
            )
            told = True
        # Two jobs that want two cards each must not take turns in step for ever.
        time.sleep(pause * random.uniform(0.5, 1.5))


def _lock(path: Path, stack: ExitStack) -> bool:
    """Lock `path` until the stack ends; False where another process holds it."""
    # Reading is enough for a lock, and all that is allowed on a file of another user.
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
