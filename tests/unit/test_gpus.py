"""Cards are handed out one job each: with a fake nvidia-smi, and real processes for the locks."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from vista.engine.gpus import SHARE, VISIBLE, Wanted, claimed, visible_cards, wanted
from vista.errors import UserError

CARDS = ["GPU-aa11", "GPU-bb22", "GPU-cc33"]
ANY = {"llm": {"device": "auto"}}
HOLD = """
import json, os, sys, time
from pathlib import Path
from vista.engine.gpus import claimed
with claimed(json.loads(sys.argv[1]), Path(sys.argv[2]), pause=0.05):
    assert "torch" not in sys.modules
    print(os.environ.get("CUDA_VISIBLE_DEVICES"), flush=True)
    time.sleep(60)
"""


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine of three cards; returns the folder of its locks."""
    program = tmp_path / "bin" / "nvidia-smi"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n" + "".join(f"echo {card}\n" for card in CARDS))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.delenv(VISIBLE, raising=False)
    monkeypatch.delenv(SHARE, raising=False)
    locks = tmp_path / "locks"
    locks.mkdir()
    return locks


class Holder:
    """Another job's process, which keeps its cards until it is killed."""

    def __init__(self, locks: Path, options: dict[str, Any] = ANY) -> None:
        command = [sys.executable, "-c", HOLD, json.dumps(options), str(locks)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    def cards(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def __enter__(self) -> Holder:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


def test_jobs_at_the_same_time_get_different_cards(machine: Path) -> None:
    with Holder(machine) as first, Holder(machine) as second, Holder(machine) as third:
        assert sorted(each.cards() for each in (first, second, third)) == CARDS


def test_a_job_waits_for_a_card_and_gets_that_of_a_killed_one(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VISIBLE, "1")
    with Holder(machine) as first:
        assert first.cards() == CARDS[1]
        with Holder(machine) as second:
            time.sleep(0.5)
            os.set_blocking(second.process.stdout.fileno(), False)  # type: ignore[union-attr]
            assert second.cards() == ""
            os.set_blocking(second.process.stdout.fileno(), True)  # type: ignore[union-attr]
            first.process.kill()
            assert second.cards() == CARDS[1]


def test_a_job_that_waits_for_all_cards_keeps_none_from_others(machine: Path) -> None:
    with Holder(machine) as first, Holder(machine, {"llm": {"device_map": "auto"}}) as everything:
        assert first.cards() in CARDS
        time.sleep(0.3)
        with Holder(machine) as second, Holder(machine) as third:
            assert {second.cards(), third.cards()} < set(CARDS)
        first.process.kill()
        assert everything.cards() == ",".join(CARDS)


def test_slurms_choice_is_the_set_to_choose_from(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VISIBLE, "2,0")
    assert visible_cards() == [CARDS[2], CARDS[0]]
    with claimed(ANY, machine):
        assert os.environ[VISIBLE] == CARDS[2]
    assert os.environ[VISIBLE] == "2,0"


@pytest.mark.parametrize(
    ("named", "cards"),
    [
        ("", []),
        ("-1", []),
        ("NoDevFiles", []),
        ("1,7,0", CARDS[1:2]),
        ("GPU-cc", CARDS[2:]),
        ("MIG-5", ["MIG-5"]),
    ],
)
def test_names_that_cuda_knows_are_known(
    named: str, cards: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VISIBLE, named)
    assert visible_cards() == cards


def test_a_card_of_the_users_choice_is_held_and_keeps_its_number(machine: Path) -> None:
    with claimed({"encoder": {"device": "cuda:1"}}, machine):
        assert VISIBLE not in os.environ
        with Holder(machine) as first, Holder(machine) as second:
            assert {first.cards(), second.cards()} == {CARDS[0], CARDS[2]}


def test_shared_cards_are_not_held(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SHARE, "1")
    with claimed(ANY, machine):
        assert VISIBLE not in os.environ
    assert not list(machine.iterdir())


@pytest.mark.parametrize("options", [{}, {"llm": {"device": "cpu"}}, {"sae": {"device": "mps"}}])
def test_a_job_without_a_gpu_touches_nothing(machine: Path, options: dict[str, Any]) -> None:
    with claimed(options, machine):
        assert VISIBLE not in os.environ
    assert not list(machine.iterdir())


def test_a_machine_without_cards_changes_nothing(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(machine))
    with claimed(ANY, machine):
        assert VISIBLE not in os.environ


def test_more_cards_than_there_are_is_the_users_mistake(machine: Path) -> None:
    four = {"training": {"processes": 4}, "llm": {"device": "cuda"}}
    with (
        pytest.raises(UserError, match="asks for 4 GPUs, and 3 are visible"),
        claimed(four, machine),
    ):
        pass


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"llm": {"device": "cuda"}, "sae": {"device": "auto"}}, Wanted(1)),
        ({"llm": {"device": "auto"}, "training": {"processes": 2}}, Wanted(2)),
        ({"llm": {"device": "cpu"}, "training": {"processes": 2}}, Wanted(0)),
        ({"llm": {"device": "auto"}, "training": {"processes": 2, "machines": 2}}, Wanted(0)),
        ({"encoder": {"device": "cuda:2"}, "llm": {"device": "auto"}}, Wanted(2, (0, 2))),
    ],
)
def test_what_a_job_asks_for(options: dict[str, Any], expected: Wanted) -> None:
    assert wanted(options) == expected
