"""Publication at every moment of a kill, on a disk that loses what was not forced to it."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
from faults.inside.sitecustomize import Inside

from vista.engine import artifacts
from vista.engine.artifacts import CHECKPOINTS, Provenance, open_artifact, publishing
from vista.errors import UserError
from vista.store import files

RECORD = Provenance(
    "features", {"seed": 0}, {"records": "ab"}, {"vista.store": "1"}, {"numpy": "2"}
)
NODE = "clip-0123456789"


def make(results: Path, record: Provenance = RECORD) -> Path:
    with publishing(results, record.stage, NODE, record) as work:
        if work is not None:
            (work / CHECKPOINTS).mkdir(exist_ok=True)
            (work / CHECKPOINTS / "step-1").write_text("weights")
            (work / "store").mkdir(exist_ok=True)
            (work / "store" / "chunk").write_text("chunk")
            (work / "table.txt").write_text("table")
    return results / record.stage / NODE


def content(folder: Path) -> dict[str, bytes]:
    found = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def killed_at(operation: int, results: Path, record: Provenance) -> bool:
    """Make the artifact in a process that is killed before that operation; False: it is not."""
    child = os.fork()
    if not child:
        try:
            order = {"node": f"features/{NODE}", "kind": "kill_stage", "at": operation}
            order |= {"fired": str(results.parent / f"fired-{operation}")}
            manifest = results / "features" / NODE / "manifest.json"
            Inside(str(manifest), str(results.parent / "trace"), [order]).start()
            make(results, record)
            os._exit(0)
        finally:
            os._exit(1)
    status = os.waitpid(child, 0)[1]
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL


@pytest.mark.parametrize("again", [False, True], ids=["new", "in place of an older one"])
def test_killed_before_any_operation_it_ends_with_the_same_bytes(
    tmp_path: Path, again: bool
) -> None:
    expected = content(make(tmp_path / "whole"))
    older = Provenance("features", {"seed": 9}, {"records": "ab"}, {"vista.store": "1"}, {})
    operation, trained = 0, False
    while True:
        operation += 1
        results = tmp_path / str(operation) / "results"
        results.mkdir(parents=True)
        if again:
            make(results, older)
        if not killed_at(operation, results, RECORD):
            break
        manifest = results / "features" / NODE / "manifest.json"
        # Half-done or done: what can be opened is whole.
        if manifest.exists():
            open_artifact(manifest.parent).verify()
        # What it trained is there as a checkpoint until its result is.
        kept = list(results.rglob("step-1")) or list(results.rglob("features/*/memo.json"))
        assert kept or not trained
        trained = bool(kept)
        # A second kill, at the same place of the try that goes on, must not change that.
        killed_at(operation, results, RECORD)
        assert content(make(results)) == expected
        assert CHECKPOINTS not in {path.split("/")[0] for path in expected}
        left = {path.name for path in (results / ".work" / "features").iterdir()}
        assert left <= {f"{NODE}.lock", f"{NODE}.record.json.unfinished"}
    assert operation > 12, "too few operations: the trace misses some"


def test_everything_is_on_the_disk_before_the_manifest_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[tuple[str, str]] = []
    fsync, replace = os.fsync, os.replace

    def synced(descriptor: int) -> None:
        events.append(("synced", os.readlink(f"/proc/self/fd/{descriptor}")))
        fsync(descriptor)

    def replaced(source: Any, target: Any) -> None:
        replace(source, target)
        events.append(("renamed", str(target)))

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", replaced)
    out = make(tmp_path)
    counts = events.index(("renamed", str(out / "manifest.json")))
    work = tmp_path / ".work" / "features" / NODE
    before = events[:counts]
    for name in ("store/chunk", "table.txt", "store", ""):
        assert ("synced", str(work / name).rstrip("/")) in before, name
    assert before[-2] == ("synced", str(out.parent))  # the artifact's own name
    assert ("synced", str(out)) in events[counts:]  # the manifest's name


def test_a_shards_name_is_on_the_disk_when_it_is_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    fsync = os.fsync

    def synced(descriptor: int) -> None:
        events.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", synced)
    files.publish(tmp_path / "c" / "0", [b"shard"])
    assert len(events) == 2 and events[1] == str(tmp_path / "c")


@pytest.mark.parametrize("name", ["manifest.json", "memo.json", "checksums.json"])
def test_every_bit_flip_in_an_artifacts_own_files_is_noticed(tmp_path: Path, name: str) -> None:
    path = make(tmp_path) / name
    whole = path.read_bytes()
    for i in range(len(whole)):
        damaged = bytearray(whole)
        damaged[i] ^= 1 << i % 8
        path.write_bytes(damaged)
        with pytest.raises(UserError, match=r"is damaged.*rm -r"):
            open_artifact(path.parent)
    path.write_bytes(whole)
    open_artifact(path.parent).verify()


def test_a_folder_that_was_half_removed_is_not_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Provenance("features", {"seed": 1}, {"records": "ab"}, {}, {})

    def interrupt(record: Provenance) -> list[str]:
        with pytest.raises(KeyboardInterrupt), publishing(tmp_path, "features", NODE, record) as w:
            assert w is not None
            found = sorted(path.name for path in w.iterdir())
            (w / "shard-0").write_text("done")
            (w / "shard-1").write_text("done")
            raise KeyboardInterrupt
        return found

    def killed(folder: Path) -> None:
        (folder / "shard-1").unlink()
        raise KeyboardInterrupt

    assert interrupt(RECORD) == []
    with monkeypatch.context() as patch:
        patch.setattr(artifacts.shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt), publishing(tmp_path, "features", NODE, other):
            pass
    assert interrupt(RECORD) == []
