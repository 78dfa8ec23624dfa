"""The command line: a stage from its spec to an artifact, and mistakes told in one sentence."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import pytest

from vista import cli
from vista.artifacts import open_artifact
from vista.stages import STAGES


@pytest.fixture
def lines(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "train.txt").write_text("a cat\na dog\n")
    (tmp_path / "heldout.txt").write_text("a bird\n")
    return {
        "kind": "lines",
        "train": str(tmp_path / "train.txt"),
        "heldout": str(tmp_path / "heldout.txt"),
    }


def spec(settings: dict[str, str], **inputs: str) -> str:
    return json.dumps({"settings": settings, "inputs": inputs, "modules": []})


def call(tmp_path: Path, stage: str, text: str) -> int:
    manifest = tmp_path / "results" / stage / "n-1" / "manifest.json"
    log = tmp_path / "log.txt"
    return cli.main([stage, "--spec", text, "--manifest", str(manifest), "--log", str(log)])


def test_a_stage_runs_from_its_spec_and_says_so_in_the_log(
    tmp_path: Path, lines: dict[str, str]
) -> None:
    assert call(tmp_path, "text", spec(lines)) == 0
    artifact = open_artifact(tmp_path / "results" / "text" / "n-1", "text")
    artifact.verify()
    assert "numpy" in artifact.manifest["packages"] or "pyarrow" in artifact.manifest["packages"]
    assert "text/n-1: done" in (tmp_path / "log.txt").read_text()
    assert call(tmp_path, "text", spec(lines)) == 0
    assert "kept" in (tmp_path / "log.txt").read_text()


def test_an_unfinished_input_is_named(
    tmp_path: Path, lines: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(tmp_path, "text", spec(lines, world="draw_world/glyphs-1")) == cli.USER_ERROR
    said = capsys.readouterr().err
    assert "draw_world/glyphs-1 is no finished artifact" in said
    assert "Traceback" not in said


def test_a_users_mistake_is_one_sentence_without_a_traceback(
    tmp_path: Path, lines: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    missing = {**lines, "train": str(tmp_path / "none.txt")}
    assert call(tmp_path, "text", spec(missing)) == cli.USER_ERROR
    said = capsys.readouterr().err
    assert "none.txt" in said
    assert "Traceback" not in said
    assert not (tmp_path / "results" / "text" / "n-1" / "manifest.json").exists()


def test_a_full_disk_is_one_sentence_and_nothing_looks_finished(
    tmp_path: Path,
    lines: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    import vista.stages.text

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(vista.stages.text, "write_text", full)
    assert call(tmp_path, "text", spec(lines)) == cli.USER_ERROR
    assert "no space left on the disk" in capsys.readouterr().err
    assert not (tmp_path / "results" / "text" / "n-1" / "manifest.json").exists()


def test_a_defect_leaves_its_traceback_in_the_log(
    tmp_path: Path, lines: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import vista.stages.text

    def broken(*_: object) -> None:
        raise ZeroDivisionError("a defect")

    monkeypatch.setattr(vista.stages.text, "write_text", broken)
    with pytest.raises(ZeroDivisionError):
        call(tmp_path, "text", spec(lines))
    assert "ZeroDivisionError: a defect" in (tmp_path / "log.txt").read_text()


def test_verify_counts_and_names_damage(
    tmp_path: Path, lines: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    call(tmp_path, "text", spec(lines))
    results = tmp_path / "results"
    assert cli.main(["verify", str(results)]) == 0
    table = results / "text" / "n-1" / "text.parquet"
    content = bytearray(table.read_bytes())
    content[len(content) // 2] ^= 1
    table.write_bytes(bytes(content))
    assert cli.main(["verify", str(results)]) == cli.USER_ERROR
    said = capsys.readouterr()
    assert "1 artifacts checked, 1 damaged" in said.out
    assert "text.parquet is damaged" in said.err
    assert cli.main(["verify", str(tmp_path / "nowhere")]) == cli.USER_ERROR


def test_every_stage_has_a_module_a_rule_and_a_line_of_help(
    capsys: pytest.CaptureFixture[str],
) -> None:
    root = Path(cli.__file__).parents[1]
    rules = "".join(path.read_text() for path in (root / "workflow" / "rules").glob("*.smk"))
    for stage in STAGES:
        assert (root / "vista" / "stages" / f"{stage}.py").is_file(), stage
        assert f"rule {stage}:" in rules
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    shown = capsys.readouterr().out
    assert all(stage in shown for stage in STAGES)
