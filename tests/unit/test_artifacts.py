"""The artifact contract: a manifest last, nothing half-written or redone, all damage noticed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from vista.engine.artifacts import Provenance, canonical_json, open_artifact, publishing
from vista.errors import UserError

RECORD = Provenance("features", {"seed": 0}, {"records": "ab"}, "code", {"numpy": "2"})
NODE = "clip-0123456789"


def make(results: Path, record: Provenance = RECORD, text: str = "hello") -> Path:
    with publishing(results, record.stage, NODE, record) as work:
        if work is not None:
            (work / "store").mkdir(exist_ok=True)
            (work / "store" / "chunk").write_text(text)
            (work / "table.txt").write_text(text)
    return results / record.stage / NODE


def test_a_published_artifact_opens_and_verifies(tmp_path: Path) -> None:
    path = make(tmp_path)
    artifact = open_artifact(path, "features")
    artifact.verify()
    assert artifact.file("table.txt").read_text() == "hello"
    assert artifact.store("store") == path / "store"
    assert artifact.settings == {"seed": 0}
    assert not list((tmp_path / ".work" / "features").glob("*[!k]"))


def test_the_same_run_gives_the_same_manifest_anywhere(tmp_path: Path) -> None:
    first, second = make(tmp_path / "a"), make(tmp_path / "b")
    assert (first / "manifest.json").read_bytes() == (second / "manifest.json").read_bytes()
    third = make(tmp_path / "c", text="other")
    assert open_artifact(third).digest != open_artifact(first).digest


def test_a_stage_that_fails_leaves_no_artifact_and_keeps_the_last_one(tmp_path: Path) -> None:
    changed = Provenance("features", {"seed": 1}, {"records": "ab"}, "code", {"numpy": "2"})
    path = make(tmp_path)
    with pytest.raises(RuntimeError), publishing(tmp_path, "features", NODE, changed) as work:
        assert work is not None
        (work / "table.txt").write_text("half")
        raise RuntimeError
    assert open_artifact(path).settings == {"seed": 0}
    with pytest.raises(RuntimeError), publishing(tmp_path, "features", "new-1", RECORD):
        raise RuntimeError
    with pytest.raises(UserError, match="no finished artifact"):
        open_artifact(tmp_path / "features" / "new-1")


def test_an_interrupted_stage_finds_its_shards_again_only_if_nothing_changed(
    tmp_path: Path,
) -> None:
    def interrupt(record: Provenance) -> bool:
        with pytest.raises(KeyboardInterrupt), publishing(tmp_path, "features", "n", record) as w:
            assert w is not None
            found = (w / "shard-0").exists()
            (w / "shard-0").write_text("done")
            raise KeyboardInterrupt
        return found

    assert not interrupt(RECORD)
    assert interrupt(RECORD)
    assert not interrupt(Provenance("features", {"seed": 0}, {"records": "xx"}, "code", {}))


def test_nothing_runs_again_when_nothing_changed_even_without_the_manifest(
    tmp_path: Path,
) -> None:
    path = make(tmp_path)
    before = (path / "manifest.json").read_bytes()
    (path / "manifest.json").unlink()  # as Snakemake does before a job
    make(tmp_path, text="would be other bytes")
    assert (path / "manifest.json").read_bytes() == before
    assert open_artifact(path).file("table.txt").read_text() == "hello"


@pytest.mark.parametrize(
    "record",
    [
        Provenance("features", {"seed": 2}, {"records": "ab"}, "code", {"numpy": "2"}),
        Provenance("features", {"seed": 0}, {"records": "cd"}, "code", {"numpy": "2"}),
        Provenance("features", {"seed": 0}, {"records": "ab"}, "edited", {"numpy": "2"}),
        Provenance("features", {"seed": 0}, {"records": "ab"}, "code", {"numpy": "3"}),
    ],
    ids=["settings", "inputs", "code", "packages"],
)
def test_each_part_of_the_record_runs_the_stage_again(tmp_path: Path, record: Provenance) -> None:
    make(tmp_path)
    path = make(tmp_path, record, text="new")
    assert open_artifact(path).file("table.txt").read_text() == "new"


def test_a_damaged_file_is_not_restored_but_made_again(tmp_path: Path) -> None:
    path = make(tmp_path)
    (path / "table.txt").write_text("hellO")
    make(tmp_path)
    assert open_artifact(path).file("table.txt").read_text() == "hello"


def test_damage_is_named_with_the_remedy(tmp_path: Path) -> None:
    path = make(tmp_path)
    (path / "table.txt").write_text("hellp")  # same size, one bit
    with pytest.raises(UserError, match=r"table\.txt is damaged.*rm -r .*snakemake"):
        open_artifact(path).file("table.txt")
    (path / "store" / "chunk").unlink()
    with pytest.raises(UserError, match=r"chunk is damaged: the file is missing"):
        open_artifact(path).store("store")
    (path / "checksums.json").write_text("{}")
    with pytest.raises(UserError, match="checksums"):
        open_artifact(path)
    (path / "manifest.json").write_text('{"stage": "fea')
    with pytest.raises(UserError, match=r"manifest\.json is damaged"):
        open_artifact(path)


def test_an_artifact_of_another_stage_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"'features' artifact, expected 'records'"):
        open_artifact(make(tmp_path), "records")


def test_a_second_writer_waits_for_the_first(tmp_path: Path) -> None:
    # The first writer holds the lock when the second starts; the second must find its result.
    script = (
        "import sys, time\nfrom pathlib import Path\n"
        "from vista.engine.artifacts import Provenance, publishing\n"
        "r = Provenance('features', {'seed': 0}, {'records': 'ab'}, 'code', {'numpy': '2'})\n"
        f"with publishing(Path({str(tmp_path)!r}), 'features', {NODE!r}, r) as work:\n"
        "    print('kept' if work is None else 'writing', flush=True)\n"
        "    if work is not None:\n"
        "        sys.stdin.readline()\n"
        "        (work / 'table.txt').write_text('first')\n"
    )
    first = subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert first.stdin and first.stdout
    assert first.stdout.readline() == "writing\n"
    second = subprocess.Popen(
        [sys.executable, "-c", script],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert second.stderr and second.stdout
    assert str(first.pid) in second.stderr.readline()
    first.communicate("go\n")
    assert second.communicate(timeout=120)[0] == "kept\n"


def test_settings_have_one_text() -> None:
    assert canonical_json({"b": 1, "a": [1.0, None]}) == '{"a":[1.0,null],"b":1}'
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json(float("nan"))


def test_a_manifest_holds_no_path_and_no_time(tmp_path: Path) -> None:
    manifest = json.loads((make(tmp_path) / "manifest.json").read_text())
    assert set(manifest) == {"stage", "settings", "inputs", "code", "packages", "digest"}
    assert str(tmp_path) not in json.dumps(manifest)
