"""Judgements on disk: found by content, whole after kills, damage and several writers."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fake_endpoint import Endpoint

from vista.errors import UserError
from vista.judges import Resources, load_judge
from vista.judges.asking import AskingJudge
from vista.judges.backends.judgements import Judgements
from vista.judges.kinds.api import Settings as ApiJudgeSettings
from vista.store.show import describe

# A judge of its own process: asks about 200 texts, one at a time.
SCRIPT = """
import json, sys
from vista.judges.kinds.api import Settings as ApiJudgeSettings
from vista.judges import Resources, load_judge
settings, cache = ApiJudgeSettings.model_validate(json.loads(sys.argv[1])), sys.argv[2]
load_judge(settings, Resources(cache=cache)).judge([f"text {i}" for i in range(200)], ["cat"])
"""


def opened(folder: Path, **changes: str) -> Judgements:
    source = {"judge": "api", "model": "small", "prompt": "1-x", **changes}
    return Judgements(str(folder), **source)


def test_found_by_all_that_the_question_is_made_of(tmp_path: Path) -> None:
    opened(tmp_path).add(True, "hash", ("cat", "dog"), (True, False))
    found = opened(tmp_path)
    assert found.find(True, "hash", ("cat", "dog")) == (True, False)
    assert found.find(False, "hash", ("cat", "dog")) is None
    assert found.find(True, "other", ("cat", "dog")) is None
    assert found.find(True, "hash", ("dog", "cat")) is None
    for change in ({"judge": "vlm"}, {"model": "large"}, {"prompt": "2-x"}, {"base_url": "b"}):
        assert opened(tmp_path, **change).find(True, "hash", ("cat", "dog")) is None
    assert len(list(tmp_path.iterdir())) == 5


def test_two_endpoints_or_temperatures_do_not_share_their_answers(
    endpoint: Endpoint, settings: Callable[..., ApiJudgeSettings], tmp_path: Path
) -> None:
    endpoint.true = {"cat"}
    other = endpoint.url.replace("127.0.0.1", "localhost")
    assert other != endpoint.url
    for n, change in enumerate(({}, {"base_url": other}, {"temperature": 1.0}, {}), 1):
        judge = load_judge(settings(**change), Resources(cache=str(tmp_path)))
        assert judge.judge(["text"], ["cat"]).all()
        assert len(endpoint.requests) == min(n, 3)


def test_a_file_shows_what_was_asked_and_said(tmp_path: Path) -> None:
    label = "\x1b[2J<b>\nnew line"
    opened(tmp_path).add(True, "hash", (label,), (True,))
    opened(tmp_path).add(True, "hash", ("dog",), None, "no JSON")
    [file] = tmp_path.iterdir()
    kept, unanswered = map(json.loads, file.read_text().splitlines())
    assert kept["labels"] == [label] and kept["verdicts"] == [True] and "reason" not in kept
    assert unanswered["verdicts"] is None and unanswered["reason"] == "no JSON"
    shown = describe(file)
    assert "judge api, model small, prompt 1-x" in shown and "2 answers" in shown
    assert 'image "hash"  dog: yes' not in shown and "unanswered (no JSON)" in shown
    assert "<b>" in shown and ": yes" in shown and "\x1b" not in shown
    file.write_bytes(file.read_bytes() + b'{"torn\n[[[\n')
    assert describe(file).count("! a damaged line") == 2
    file.write_text('{"another": "file"}\n')
    assert '{"another": "file"}' in describe(file)


@pytest.mark.parametrize("lost", [1, 2, 40])
def test_a_torn_end_costs_one_judgement(lost: int, tmp_path: Path) -> None:
    first = opened(tmp_path)
    for i in range(3):
        first.add(False, f"text {i}", ("cat",), (True,))
    [file] = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:-lost])
    second = opened(tmp_path)
    known = [second.find(False, f"text {i}", ("cat",)) for i in range(3)]
    # Without its line feed alone the last line is whole.
    assert known == [(True,), (True,), (True,) if lost == 1 else None]
    second.add(False, "text 3", ("cat",), (False,))
    third = opened(tmp_path)
    assert third.find(False, "text 3", ("cat",)) == (False,)
    assert third.find(False, "text 1", ("cat",)) == (True,)


def test_an_altered_or_foreign_line_is_passed_over(tmp_path: Path) -> None:
    kept = opened(tmp_path)
    kept.add(False, "text", ("cat",), (True,))
    kept.add(False, "other", ("cat",), (True,))
    [file] = tmp_path.iterdir()
    lines = file.read_bytes().splitlines(keepends=True)
    turned = lines[0].replace(b"[true]", b"[false]")
    assert turned != lines[0]
    junk = b'[1]\n"x"\nnull\n{"key": {}}\n\xff\xfe\n' + b"[" * 50_000 + b"\n"
    file.write_bytes(turned + junk + lines[1])
    found = opened(tmp_path)
    assert found.find(False, "text", ("cat",)) is None
    assert found.find(False, "other", ("cat",)) == (True,)


def test_a_file_cut_off_or_damaged_in_the_middle_keeps_all_other_lines_and_tells(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = opened(tmp_path)
    for i in range(5):
        first.add(False, f"text {i}", ("cat",), (True,))
    [file] = tmp_path.iterdir()
    lines = file.read_bytes().splitlines(keepends=True)
    assert not capsys.readouterr().out
    file.write_bytes(b"\xef\xbb\xbf" + lines[0] + lines[1][:40] + lines[2] + b"\r\n" + lines[3])
    second = opened(tmp_path)
    # The torn line takes the one that was written behind it with it.
    kept = [second.find(False, f"text {i}", ("cat",)) for i in range(5)]
    assert kept == [(True,), None, None, (True,), None]
    assert f"{file}: 1 damaged lines passed over" in capsys.readouterr().out
    second.add(False, "text 1", ("cat",), (True,))
    assert opened(tmp_path).find(False, "text 1", ("cat",)) == (True,)


def test_several_writers_do_not_mix_their_lines(tmp_path: Path) -> None:
    def write(who: int) -> None:
        mine = opened(tmp_path)
        for i in range(25):
            mine.add(False, f"{who} {i} {'long ' * 2000}", ("cat",), (True,))

    threads = [threading.Thread(target=write, args=(who,)) for who in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    [file] = tmp_path.iterdir()
    assert len([json.loads(line) for line in file.read_text().splitlines()]) == 100


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be read or created"):
        opened(tmp_path / "file")


def test_a_killed_judge_asks_nothing_twice(
    endpoint: Endpoint, settings: Callable[..., ApiJudgeSettings], tmp_path: Path
) -> None:
    endpoint.true, endpoint.pause_s = {"cat"}, 0.03
    given: Any = settings(concurrency=4)
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, given.model_dump_json(), str(tmp_path)]
    )
    deadline = time.monotonic() + 120
    while len(endpoint.requests) < 40 and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    time.sleep(0.1)
    asked, endpoint.pause_s = len(endpoint.requests), 0.0
    assert 40 <= asked < 200
    judge = load_judge(given, Resources(cache=str(tmp_path)))
    assert isinstance(judge, AskingJudge)
    assert judge.judge([f"text {i}" for i in range(200)], ["cat"]).all()
    # Only what was under way when the kill came is asked a second time.
    assert judge.tally.kept >= asked - given.concurrency
    assert judge.tally.kept + judge.tally.sent == 200
