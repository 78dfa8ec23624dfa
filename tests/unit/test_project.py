"""`vista init`: a project folder, written beside what is there."""

from __future__ import annotations

from pathlib import Path

import pytest

from vista.cli import main
from vista.engine.plan import load_plan
from vista.engine.shipped import config_names, project_config, shipped

ROOT = Path(__file__).parents[2]


def written(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


PROJECT = {"config/config.yaml", "config/vista.schema.json", "Snakefile", "README.md", ".gitignore"}


def test_a_project_has_the_config_and_the_files_that_it_names(tmp_path: Path) -> None:
    assert main(["init", str(tmp_path / "deep" / "new")]) == 0
    assert written(tmp_path / "deep" / "new") == PROJECT
    config = tmp_path / "deep" / "new" / "config" / "config.yaml"
    assert config.read_bytes() == (ROOT / "config" / "default.yaml").read_bytes()
    assert main(["init", str(tmp_path / "own"), "--config", "photographs-smoke"]) == 0
    assert written(tmp_path / "own") == PROJECT | {"config/photographs/stamps.json"}
    assert main(["init", str(tmp_path / "near"), "--config", "neighbours"]) == 0
    models = {path for path in written(tmp_path / "near") if "architectures" in path}
    assert {path.split("/")[2] for path in models} == {"svd", "vjepa2"}
    for path in sorted(PROJECT - {"config/config.yaml"}):
        text = (tmp_path / "own" / path).read_text()
        # No place of this machine, and no place that was left open.
        assert str(ROOT) not in text and (path.endswith(".json") or "{" not in text)


@pytest.mark.parametrize("name", config_names())
def test_no_config_names_another_file_of_the_package(name: str) -> None:
    """Only a node's files are copied into a project."""
    nodes = load_plan(shipped() / "config" / f"{name}.yaml").nodes.values()
    copied = {file for node in nodes for file in node.files}
    lines = (shipped() / "config" / f"{name}.yaml").read_text().splitlines()
    words = {
        word.strip("{},\"'")
        for line in lines
        if not line.lstrip().startswith("#")
        for word in line.split("  #")[0].split()
    }
    named = {word for word in words if word.startswith("config/") and "." in word}
    assert named <= copied


def test_what_is_there_is_never_changed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "Snakefile").write_text("mine")
    assert main(["init", str(tmp_path)]) == 2
    assert "is not empty" in capsys.readouterr().err
    assert written(tmp_path) == {"Snakefile"}
    assert main(["init", str(tmp_path), "--force"]) == 0
    assert "Snakefile: kept as it is" in capsys.readouterr().out
    assert written(tmp_path) == PROJECT
    assert (tmp_path / "Snakefile").read_text() == "mine"


def test_a_folder_that_cannot_be_written_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert main(["init", str(tmp_path / "file")]) == 2
    assert "file cannot be written" in capsys.readouterr().err


def test_the_config_of_a_project_is_the_default_of_commands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert project_config() == Path("config/default.yaml")
    assert main(["init", ".", "--config", "smoke"]) == 0
    assert project_config() == Path("config/config.yaml")
    assert main(["explain", "results/report/smoke-*"]) == 1
    assert main(["where"]) == 0
    assert Path(capsys.readouterr().out.splitlines()[-1], "workflow", "Snakefile").is_file()
