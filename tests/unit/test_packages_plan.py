"""`packages:` of a config: what is refused, and which artifacts it asks for."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml
from pydantic import BaseModel

from vista.config.packages import (
    AptPackage,
    FolderPackage,
    PackageFile,
    PipPackage,
    refuse_unknown_packages,
)
from vista.config.reading import parse_config
from vista.engine.forecast.missing import missing
from vista.engine.forecast.shapes import Shapes
from vista.engine.node import Node
from vista.engine.nodes import Builder
from vista.engine.package_nodes import package_node
from vista.errors import UserError
from vista.foreign import clients
from vista.stages import fetch_package

CONFIG = Path(__file__).parents[2] / "config" / "smoke.yaml"
WHEEL: dict[str, Any] = {"kind": "pip", "package": "tiny", "version": "1.0", "sha256": "0" * 64}
DEB: dict[str, Any] = {"kind": "apt", "package": "tiny", "version": "1:1.0-3", "sha256": "1" * 64}


def content(**packages: Any) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(CONFIG.read_text())
    return {**loaded, "packages": packages}


def wheel_id(**changes: Any) -> str:
    return package_node("any", PipPackage(**{**WHEEL, **changes})).id


def test_a_builder_has_one_node_an_entry() -> None:
    builder = Builder(parse_config(content(a=WHEEL, b=DEB)))
    assert builder.package("a") is builder.package("a")
    assert [builder.package(name).stage for name in "ab"] == ["fetch_package"] * 2
    assert builder.package("b").name == "tiny"


def test_an_id_depends_on_what_the_files_are_and_not_on_where_they_come_from() -> None:
    same = [{}, {"bytes": 7}, {"python": "3.11"}, {"platform": "linux_x86_64"}]
    assert len({wheel_id(**changes) for changes in same}) == 1
    others = [{}, {"version": "2.0"}, {"package": "x"}, {"sha256": "2" * 64}, {"files": ["*"]}]
    assert len({wheel_id(**changes) for changes in others}) == len(others)


def test_a_folder_is_the_same_artifact_wherever_it_lies(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / "x").write_text("x")
    one, two = (FolderPackage(kind="folder", path=str(tmp_path / name)) for name in "ab")
    assert package_node("own", one).id == package_node("own", two).id
    assert package_node("own", one).spec != package_node("own", two).spec
    # Two of one config are two.
    assert package_node("own", one).id != package_node("other", one).id


def test_a_change_in_a_folder_is_a_change_of_the_jobs_order(tmp_path: Path) -> None:
    folder = FolderPackage(kind="folder", path=str(tmp_path))

    def spec() -> str:
        return package_node("own", folder).spec

    specs = [spec()]
    (tmp_path / "below").mkdir()
    assert spec() == specs[0]
    (tmp_path / "below" / "x").write_text("x")
    specs.append(spec())
    (tmp_path / "below" / "x").write_text("y")
    os.utime(tmp_path / "below" / "x", ns=(1, 1))
    specs.append(spec())
    (tmp_path / "below" / "x").rename(tmp_path / "below" / "y")
    specs.append(spec())
    assert len(set(specs)) == 4


def test_what_is_watched_of_a_folder() -> None:
    def watched(*files: str) -> tuple[str, ...]:
        return FolderPackage(kind="folder", path="/own", files=files).watched()

    assert watched() == ("/own",)
    assert watched("models/a*.gguf", "models/x/*", "b/c.txt") == ("/own/b/c.txt", "/own/models")
    assert watched("*.png", "b/c.txt") == ("/own",)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({**WHEEL, "sha256": "x"}, "packages.a.sha256: "),
        ({**WHEEL, "package": "--index"}, "packages.a.package: "),
        ({**WHEEL, "version": "-1"}, "packages.a.version: "),
        ({**WHEEL, "version": "1 --pre"}, "packages.a.version: "),
        ({**DEB, "package": "Tiny"}, "packages.a.package: "),
        ({**DEB, "python": "3.11"}, "unknown key packages.a.python"),
        ({**WHEEL, "files": ["../x"]}, "packages.a: pattern '../x' must be relative"),
        ({**WHEEL, "files": ["/x"]}, "packages.a: pattern '/x' must be relative"),
        ({"kind": "folder"}, "key packages.a.path is missing"),
        ({"kind": "npm"}, "packages.a"),
    ],
)
def test_what_an_entry_may_not_say(entry: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as error:
        parse_config(content(a=entry))
    assert message in str(error.value)


class _Source(PackageFile):
    kind: Literal["gguf"] = "gguf"


class _Model(BaseModel):
    source: _Source


class _Config(BaseModel):
    packages: dict[str, PipPackage]
    llms: dict[str, _Model]
    data: list[_Source] = []


def test_an_unknown_package_is_refused_with_the_key_and_the_known_ones() -> None:
    def check(package: str | None, *known: str) -> None:
        packages = {name: PipPackage(**WHEEL) for name in known}
        models = {"smol": _Model(source=_Source(package=package, file="a"))}
        refuse_unknown_packages(_Config(packages=packages, llms=models), packages)

    check("a", "a", "b")
    check(None)
    with pytest.raises(ValueError, match=r"^llms.smol.source.package names 'x'.* there are a, b$"):
        check("x", "b", "a")
    with pytest.raises(ValueError, match=r"there are none$"):
        check("x")
    listed = _Config(packages={}, llms={}, data=[_Source(package="x", file="a")])
    with pytest.raises(ValueError, match=r"^data.0.package names 'x'"):
        refuse_unknown_packages(listed, {})


@pytest.mark.parametrize("file", ["../a", "/a", "b/../../a", "b\\a", ""])
def test_a_file_of_a_package_is_below_it(file: str) -> None:
    with pytest.raises(ValueError, match=r"relative|at least 1 character"):
        _Source(package="a", file=file)


def test_a_users_own_file_may_lie_anywhere() -> None:
    assert _Source(file="/a").file == "/a" and _Source(file="../a").package is None


def test_a_forecast_of_a_package(tmp_path: Path) -> None:
    def disk(package: Any) -> float | None:
        return fetch_package.need(package_node("a", package), Shapes(tmp_path, [])).disk

    assert disk(PipPackage(**WHEEL)) is None
    assert disk(PipPackage(**WHEEL, bytes=7_000_000)) == 7_000_000
    known = "90a0b02e3e525d5689d7fd63da2c5897a08131912a9a2e5e90f6cae2f144e526"
    assert disk(PipPackage(**{**WHEEL, "sha256": known})) == 90_210_194
    own = disk(FolderPackage(kind="folder", path="/own"))
    assert own is not None and own < 1_000_000


def test_a_folder_that_is_not_there_is_missing_before_the_run(tmp_path: Path) -> None:
    def lines(path: Path) -> list[str]:
        node = package_node("a", FolderPackage(kind="folder", path=str(path), files=("x/*",)))
        return missing(Shapes(tmp_path, [node]))

    assert lines(tmp_path) == []
    (line,) = lines(tmp_path / "gone")
    assert line.startswith(f"folder of a package {tmp_path}/gone is not there")


JSON = {"kind": "json", "package": "a", "file": "x.json", "key": "k"}
GLOSSES = {"kind": "wordnet", "package": "b", "folder": "usr/share/wordnet"}


def text_node(text: Any, **packages: Any) -> Node:
    return Builder(parse_config({**content(**packages), "text": text})).text


def test_a_text_reads_its_packages() -> None:
    mixed = {"kind": "mixed", "parts": [GLOSSES, JSON, JSON, {"kind": "captions"}]}
    node = text_node(mixed, a=WHEEL, b=DEB)
    assert [package.name for package in node.inputs["packages"]] == ["tiny", "tiny"]  # type: ignore[union-attr]
    numbers = [part.get("package") for part in node.settings["parts"]]
    assert numbers == ["0", "1", "1", None]
    assert set(node.inputs) == {"records", "packages"} and node.files == ()


def test_what_packages_are_called_is_no_part_of_a_texts_id() -> None:
    renamed = text_node({**JSON, "package": "other"}, other=WHEEL)
    assert text_node(JSON, a=WHEEL).id == renamed.id
    assert text_node(JSON, a={**WHEEL, "version": "2.0"}).id != renamed.id
    assert text_node({**JSON, "key": "other"}, a=WHEEL).id != renamed.id


def test_the_users_own_texts_are_watched() -> None:
    own = [{**JSON, "package": None}, {**GLOSSES, "package": None, "parts_of_speech": ["verb"]}]
    node = text_node({"kind": "mixed", "parts": own})
    assert node.files == ("usr/share/wordnet/data.verb", "x.json")
    assert "packages" not in node.inputs


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ({**JSON, "package": "x"}, "text.package names 'x', which is no entry of `packages`"),
        ({"kind": "mixed", "parts": [{**GLOSSES, "package": "x"}]}, "text.parts.0.package names"),
        ({**GLOSSES, "folder": "/usr"}, "text: path in the package '/usr' must be relative"),
        ({**JSON, "file": "../x"}, "text: path in the package '../x' must be relative"),
        ({**JSON, "heldout": 0}, "text.heldout"),
        ({"kind": "mixed", "parts": []}, "text.parts"),
        ({"kind": "mixed", "parts": [{"kind": "mixed", "parts": [JSON]}]}, "text.parts.0"),
    ],
)
def test_what_a_text_may_not_say(text: Any, message: str) -> None:
    with pytest.raises(UserError) as error:
        text_node(text, a=WHEEL, b=DEB)
    assert message in str(error.value)


def test_a_mixed_text_needs_a_drawn_world_where_a_part_is_drawn() -> None:
    without: dict[str, Any] = yaml.safe_load((CONFIG.parent / "paper.yaml").read_text())
    drawn = {"kind": "mixed", "parts": [{"kind": "captions"}, {"kind": "drawn"}]}
    with pytest.raises(UserError, match="the default `text` needs a drawn world"):
        parse_config({**without, "text": drawn})


def test_a_client_that_is_not_installed_is_missing_before_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nodes = [package_node("a", PipPackage(**WHEEL)), package_node("b", AptPackage(**DEB))]
    monkeypatch.setattr(clients.shutil, "which", lambda name: f"/bin/{name}")
    assert missing(Shapes(tmp_path, nodes)) == []
    monkeypatch.setattr(clients.shutil, "which", lambda _: None)
    # pip is a module of this Python.
    (line,) = missing(Shapes(tmp_path, nodes))
    assert line.startswith("apt-get, which fetches tiny, is not installed") and "folder" in line
    monkeypatch.setattr(clients.importlib.util, "find_spec", lambda _: None)
    assert len(missing(Shapes(tmp_path, nodes))) == 2
