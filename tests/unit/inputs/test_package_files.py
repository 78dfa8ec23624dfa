"""Files of packages: what a source names becomes a path, checked."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_packages import deb, fake_client, sha256

from vista.cli import run_stage
from vista.config.packages import AptPackage, FolderPackage
from vista.engine.artifacts import Artifact, open_artifact
from vista.engine.node import Node
from vista.engine.package_nodes import package_node
from vista.errors import UserError
from vista.inputs.package_files import package_contents, package_file, package_folder

FILES = {name: name.encode() for name in ("models/a.gguf", "models/b.gguf", "c.txt")}
Make = Callable[..., Artifact]


def made(node: Node, results: Path) -> Artifact:
    """The artifact, made as a job of the workflow would make it."""
    place = results / node.path
    place.joinpath("manifest.json").unlink(missing_ok=True)
    run_stage(node.stage, node.spec, place / "manifest.json", 1)
    return open_artifact(place, "fetch_package")


def linked(tmp_path: Path, place: str = "own", files: tuple[str, ...] = ()) -> Artifact:
    for name, content in FILES.items():
        path = tmp_path / place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    package = FolderPackage(kind="folder", path=str(tmp_path / place), files=files)
    return made(package_node("own", package), tmp_path / "results")


def fetched(tmp_path: Path) -> Artifact:
    content = deb(FILES)
    (tmp_path / "tiny.deb").write_bytes(content)
    fake_client(tmp_path / "bin" / "apt-get", {"tiny=1.0": tmp_path / "tiny.deb"})
    package = AptPackage(kind="apt", package="tiny", version="1.0", sha256=sha256(content))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", str(tmp_path / "bin"))
        return made(package_node("tiny", package), tmp_path / "results")


@pytest.mark.parametrize("make", [linked, fetched])
def test_a_file_of_a_package_is_found_and_checked(make: Make, tmp_path: Path) -> None:
    package = make(tmp_path)
    path = package_file(package, "models/a.gguf", "llms.a.source.file")
    assert path.read_bytes() == b"models/a.gguf" and not path.is_symlink()
    assert package_contents(package)["c.txt"] == {"bytes": 5, "sha256": sha256(b"c.txt")}
    path.write_bytes(b"models/x.gguf")
    with pytest.raises(UserError, match=r"a\.gguf (has changed|is damaged)"):
        package_file(package, "models/a.gguf", "llms.a.source.file")


@pytest.mark.parametrize("make", [linked, fetched])
@pytest.mark.parametrize("file", ["models/a.ggu", "../secret", "/etc/passwd", "models", "", "."])
def test_a_file_that_is_not_there_is_refused_with_what_is(
    make: Make, tmp_path: Path, file: str
) -> None:
    (tmp_path / "secret").write_text("x")
    package = make(tmp_path)
    with pytest.raises(UserError) as error:
        package_file(package, file, "llms.a.source.file")
    message = str(error.value)
    assert message.startswith("llms.a.source.file: package ") and f"no file {file!r}" in message
    assert ("own" if make is linked else "tiny 1.0") in message and "models/a.gguf" in message


@pytest.mark.parametrize("make", [linked, fetched])
def test_a_folder_of_a_package(make: Make, tmp_path: Path) -> None:
    package = make(tmp_path)
    folder = package_folder(package, "models/", "data.folder")
    assert sorted(path.name for path in folder.iterdir()) == ["a.gguf", "b.gguf"]
    assert (package_folder(package, "", "data.folder") / "c.txt").is_file()
    for wrong in ("model", "..", "/etc", "c.txt"):
        with pytest.raises(UserError, match=r"data.folder: package .* has no folder"):
            package_folder(package, wrong, "data.folder")
    (folder / "b.gguf").unlink()
    with pytest.raises(UserError, match=r"b\.gguf (has changed|is damaged)"):
        package_folder(package, "models", "data.folder")


def test_files_that_the_patterns_leave_out_are_not_there(tmp_path: Path) -> None:
    package = linked(tmp_path, files=("models/*",))
    assert set(package_contents(package)) == {"models/a.gguf", "models/b.gguf"}
    with pytest.raises(UserError, match=r"no file .c.txt."):
        package_file(package, "c.txt", "file")


def test_a_folder_that_moved_is_linked_anew_and_its_artifact_is_the_same(tmp_path: Path) -> None:
    first = linked(tmp_path)
    shutil.rmtree(tmp_path / "own")
    with pytest.raises(UserError, match="is not where it was"):
        package_file(first, "c.txt", "file")
    second = linked(tmp_path, "moved")
    assert (first.path, first.digest) == (second.path, second.digest)
    assert package_file(second, "c.txt", "file") == tmp_path / "moved" / "c.txt"


def test_a_folder_whose_content_changed_is_another_artifact(tmp_path: Path) -> None:
    first = linked(tmp_path)
    (tmp_path / "own" / "models" / "new").write_text("x")
    second = linked(tmp_path)
    assert first.path == second.path and first.digest != second.digest


def test_a_users_own_file_needs_no_package(tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    path.write_text("x")
    assert package_file(None, str(path), "llms.a.source.file") == path
    with pytest.raises(UserError, match=r"llms.a.source.file: .* is not a file"):
        package_file(None, str(tmp_path), "llms.a.source.file")
