"""fetch_data: files by URL, resumed, checked, and unpacked only below their folder."""

from __future__ import annotations

import gzip
import hashlib
import io
import itertools
import json
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fake_hub import FakeHub

from vista.config.data import FetchFile
from vista.engine.job import Job
from vista.errors import UserError
from vista.fetch import download
from vista.stages import fetch_data

Put = Callable[[str, bytes], Path]
MakeJob = Callable[..., Job]
PHOTO = bytes(range(250)) * 600


# Archives have the same bytes at any time: a ZipInfo without a date is of 1980, and gzip's header
# and tarfile's members would hold the clock.
def zipped(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name), content)
    return out.getvalue()


def gzipped(files: dict[str, bytes | tarfile.TarInfo]) -> bytes:
    return gzip.compress(tarred(files), mtime=0)


def tarred(files: dict[str, bytes | tarfile.TarInfo]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:") as archive:
        for name, content in files.items():
            if isinstance(content, tarfile.TarInfo):
                content.name = name
                archive.addfile(content)
                continue
            member = tarfile.TarInfo(name)
            member.size = len(content)
            member.mode = 0o4777
            archive.addfile(member, io.BytesIO(content))
    return out.getvalue()


def special(kind: bytes, target: str = "") -> tarfile.TarInfo:
    member = tarfile.TarInfo()
    member.type, member.linkname = kind, target
    return member


def contents(folder: Path) -> dict[str, bytes]:
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def file(hub: FakeHub, name: str, content: bytes | None = None, **more: Any) -> dict[str, Any]:
    sha256 = hashlib.sha256(content).hexdigest() if content is not None else None
    return FetchFile(url=f"{hub.url}/files/{name}", sha256=sha256, **more).model_dump()


def refusal(job: Job) -> str:
    with pytest.raises(UserError) as caught:
        fetch_data.run(job)
    return str(caught.value)


def test_files_and_archives_come_into_their_folders(
    hub: FakeHub, put: Put, job: MakeJob, capsys: pytest.CaptureFixture[str]
) -> None:
    images, notes = zipped({"images/a.jpg": PHOTO}), gzipped({"n/b.json": b"[]", "c.txt": b"c"})
    put("files/images.zip", images)
    put("files/notes.tar.gz", notes)
    put("files/plain.tar", tarred({"d.txt": b"d"}))
    put("files/captions.json", b"{}")
    put("files/kept.zip", images)
    files = [
        file(hub, "images.zip", images),
        file(hub, "notes.tar.gz", notes, folder="some/notes"),
        file(hub, "plain.tar"),
        file(hub, "captions.json", b"{}", folder="text"),
        file(hub, "kept.zip", images, unpack=False),
    ]
    order = job("fetch_data", files=files)
    fetch_data.run(order)
    assert contents(order.work / "data") == {
        "images/a.jpg": PHOTO,
        "some/notes/n/b.json": b"[]",
        "some/notes/c.txt": b"c",
        "d.txt": b"d",
        "text/captions.json": b"{}",
        "kept.zip": images,
    }
    # Nothing but the data and where they came from: no archives, no partial files.
    assert {path.name for path in order.work.iterdir()} == {"data", "source"}
    source = json.loads((order.work / "source" / "2.json").read_text())
    assert f"`sha256: {source['sha256']}`" in capsys.readouterr().out
    assert (order.work / "data" / "d.txt").stat().st_mode & 0o6000 == 0

    hub.requests.clear()
    fetch_data.run(order)
    assert not hub.requests


def test_goes_on_where_an_earlier_job_was_killed(hub: FakeHub, put: Put, job: MakeJob) -> None:
    first, second = zipped({"a.jpg": PHOTO}), zipped({"b.jpg": PHOTO})
    put("files/first.zip", first)
    put("files/second.zip", second)
    order = job("fetch_data", files=[file(hub, "first.zip", first), file(hub, "second.zip")])
    hub.cut("second.zip", after=100_000)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(download.Patience, "failed", killed)
        with pytest.raises(KeyboardInterrupt):
            fetch_data.run(order)
    assert not (order.work / "source" / "1.json").exists()
    there = (order.work / "received" / "1" / "second.zip.partial").stat().st_size
    assert 0 < there <= 100_000

    hub.requests.clear()
    fetch_data.run(order)
    assert contents(order.work / "data") == {"a.jpg": PHOTO, "b.jpg": PHOTO}
    assert hub.asked("first.zip") == 0
    assert hub.sent("second.zip") == len(second) - there


def test_an_unfinished_file_without_checksum_is_not_joined_to_another_version(
    hub: FakeHub, put: Put, job: MakeJob
) -> None:
    put("files/notes.json", b"a" * 100_000)
    order = job("fetch_data", files=[file(hub, "notes.json")])
    hub.cut("notes.json", after=60_000)

    def killed(*_: object) -> None:
        put("files/notes.json", b"b" * 100_001)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(download.Patience, "failed", killed)
        fetch_data.run(order)
    assert contents(order.work / "data") == {"notes.json": b"b" * 100_001}
    assert hub.requests[-1].range is not None and hub.requests[-1].status == 200


def test_a_server_that_cannot_go_on_from_the_middle_is_given_up_on(
    hub: FakeHub, put: Put, job: MakeJob
) -> None:
    put("files/notes.json", PHOTO)
    hub.ranges = False
    order = job("fetch_data", files=[file(hub, "notes.json", PHOTO)])
    hub.cut("notes.json", after=100_000)
    fetch_data.run(order)
    assert contents(order.work / "data") == {"notes.json": PHOTO}
    hub.cut("notes.json", after=100_000, times=1000)
    assert "gave no usable answer" in refusal(job("never", files=[file(hub, "notes.json", PHOTO)]))


def test_a_wrong_checksum_is_refused(hub: FakeHub, put: Put, job: MakeJob) -> None:
    put("files/notes.json", b"changed")
    message = refusal(job("fetch_data", files=[file(hub, "notes.json", b"original")]))
    assert "notes.json differs from its checksum" in message
    assert hashlib.sha256(b"original").hexdigest() in message


def test_says_what_to_do_where_a_file_cannot_be_had(
    hub: FakeHub, put: Put, job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = refusal(job("gone", files=[file(hub, "gone.zip?secret=1")]))
    assert "gone.zip does not exist at 127.0.0.1" in gone and "secret" not in gone
    put("files/notes.json", b"{}")
    hub.fail("notes.json", 403)
    assert "is refused" in refusal(job("refused", files=[file(hub, "notes.json")]))
    hub.fail("notes.json", 503, times=download.TRIES)
    assert "later" in refusal(job("busy", files=[file(hub, "notes.json")]))
    with FakeHub(hub.root) as closed:
        unreachable = file(closed, "notes.json")
    message = refusal(job("unreachable", files=[unreachable]))
    assert "127.0.0.1 cannot be reached" in message and "instead of `fetch`" in message
    monkeypatch.setattr(download.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1}))
    assert "is full" in refusal(job("full", files=[file(hub, "notes.json")]))


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.zip", zipped({"../evil": b""}), "leads out"),
        ("a.zip", zipped({"/evil": b""}), "leads out"),
        ("a.zip", zipped({"a\\..\\evil": b""}), "leads out"),
        ("a.tar", tarred({"ok/../../evil": b""}), "leads out"),
        ("a.tgz", gzipped({"evil": special(tarfile.SYMTYPE, "/etc")}), "a link or a device"),
        ("a.tgz", gzipped({"evil": special(tarfile.LNKTYPE, "x")}), "a link or a device"),
        ("a.tgz", gzipped({"evil": special(tarfile.FIFOTYPE)}), "a link or a device"),
        ("a.tgz", gzipped({"evil": special(tarfile.CHRTYPE)}), "a link or a device"),
        ("a.zip", b"no archive at all", "damaged"),
        ("a.zip", zipped({"name": b""}).replace(b"name", b"\0ame"), "damaged"),
        ("a.tar.gz", gzipped({"a": PHOTO})[:-40], "damaged"),
        ("a.zip", zipped({"a": PHOTO}).replace(PHOTO[:9], b"123456789", 1), "damaged"),
        ("a.tar", tarred({"a": b"", "a/b": b""}), "same place"),
    ],
    ids=itertools.count(),
)
def test_an_archive_that_is_not_safe_or_not_whole_is_refused(
    hub: FakeHub,
    put: Put,
    job: MakeJob,
    tmp_path: Path,
    name: str,
    content: bytes,
    reason: str,
) -> None:
    put(f"files/{name}", content)
    order = job("fetch_data", files=[file(hub, name)])
    assert reason in refusal(order)
    assert not list(tmp_path.rglob("evil")) and not (order.work / "source" / "0.json").exists()


def test_a_link_in_a_zip_is_refused(hub: FakeHub, put: Put, job: MakeJob) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        link = zipfile.ZipInfo("evil")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
    put("files/a.zip", out.getvalue())
    assert "a link or a device" in refusal(job("fetch_data", files=[file(hub, "a.zip")]))
