"""The command line: a stage from its spec to an artifact, and mistakes told in one sentence."""

from __future__ import annotations

import errno
import importlib.util
import io
import json
from pathlib import Path

import pytest
from safetensors import SafetensorError

from vista import cli
from vista.config.metric import declared_metrics
from vista.data.records import write_text
from vista.engine.artifacts import digest_text, open_artifact
from vista.engine.code import stage_module
from vista.engine.stages import stages


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


def test_an_order_may_lie_in_a_file_that_its_name_vouches_for(
    tmp_path: Path, lines: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    order = tmp_path / f"{digest_text(spec(lines))}.json"
    assert call(tmp_path, "text", f"@{order}") == cli.USER_ERROR
    assert f"the job's order {order} cannot be read" in capsys.readouterr().err
    order.write_text(spec(lines))
    assert call(tmp_path, "text", f"@{order}") == 0
    order.write_text(spec({**lines, "limit": "1"}))
    assert call(tmp_path, "text", f"@{order}") == cli.USER_ERROR
    assert "is damaged" in capsys.readouterr().err


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


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        # As safetensors words it.
        SafetensorError(
            "Error while serializing: I/O error: No space left on device (os error 28)"
        ),
    ],
    ids=["disk", "quota", "safetensors"],
)
def test_a_full_disk_is_one_sentence_and_nothing_looks_finished(
    tmp_path: Path,
    lines: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: Exception,
) -> None:
    import vista.stages.text

    def full(*_: object) -> None:
        raise error

    monkeypatch.setattr(vista.stages.text, "write_text", full)
    assert call(tmp_path, "text", spec(lines)) == cli.USER_ERROR
    assert "no space left on the disk" in capsys.readouterr().err
    assert not (tmp_path / "results" / "text" / "n-1" / "manifest.json").exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_log_that_its_disk_cannot_take_ends_no_job(
    tmp_path: Path,
    lines: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    import vista.stages.text

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    def noisy(path: Path, texts: dict[str, list[str]]) -> dict[str, int]:
        print("x" * (1 << 20))
        print("y", flush=True)
        return write_text(path, texts)

    manifest = tmp_path / "results" / "text" / "n-1" / "manifest.json"
    order = ["text", "--spec", spec(lines), "--manifest", str(manifest), "--log", "/dev/full"]
    monkeypatch.setattr(vista.stages.text, "write_text", full)
    assert cli.main(order) == cli.USER_ERROR
    assert "no space left on the disk" in capsys.readouterr().err
    monkeypatch.setattr(vista.stages.text, "write_text", noisy)
    assert cli.main(order) == 0


def test_other_errors_of_the_system_are_no_full_disk(
    tmp_path: Path, lines: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import vista.stages.text

    def broken(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(vista.stages.text, "write_text", broken)
    with pytest.raises(OSError, match="Input/output error"):
        call(tmp_path, "text", spec(lines))


def test_a_full_standard_output_is_no_secret(
    tmp_path: Path, lines: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full(io.StringIO):
        def write(self, _: str) -> int:
            raise OSError(errno.EIO, "standard output is gone")

    monkeypatch.setattr("sys.stdout", Full())
    with pytest.raises(OSError, match="standard output is gone"):
        call(tmp_path, "text", spec(lines))


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
    for stage in stages():
        assert importlib.util.find_spec(stage_module(stage)), stage
        assert stage in declared_metrics() or f"use rule stage as {stage} with:" in rules
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    shown = capsys.readouterr().out
    assert all(stage in shown for stage in stages())
