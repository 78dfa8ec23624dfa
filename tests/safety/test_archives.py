"""Archives of strangers: files below the folder, or one error, and nothing anywhere else."""

from __future__ import annotations

import io
import shutil
import stat
import tarfile
import tempfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safety.mutations import read_or_told

from vista.errors import UserError
from vista.fetch import archives
from vista.fetch.archives import unpack

PARTS = st.sampled_from(["a", "b.png", "..", ".", "", "c:", "\\", "é", "n" * 300, "x\ny", "link"])
NAMES = st.builds(
    lambda start, parts: start + "/".join(parts),
    st.sampled_from(["", "/", "./", "//"]),
    st.lists(PARTS, min_size=1, max_size=4),
)
TYPES = [tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE]
MEMBERS = st.lists(st.tuples(NAMES, st.sampled_from([TYPES[0]] * 5 + TYPES)), max_size=5)


def tarred(path: Path, members: list[tuple[str, bytes]]) -> None:
    with tarfile.open(path, "w") as tar:
        for name, kind in members:
            info = tarfile.TarInfo(name)
            info.type, info.mode, info.linkname = kind, 0o6777, "../outside"
            info.size = 3 if kind == tarfile.REGTYPE else 0
            tar.addfile(info, io.BytesIO(b"new"))


def zipped(path: Path, members: list[tuple[str, bytes]]) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, kind in members:
            info = zipfile.ZipInfo(name)
            link = kind == tarfile.SYMTYPE
            info.external_attr = ((stat.S_IFLNK if link else stat.S_IFREG) | 0o6777) << 16
            archive.writestr(info, "../outside" if link else b"new")


@pytest.mark.filterwarnings("ignore:Duplicate name")
@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(members=MEMBERS, packed=st.sampled_from(["a.tar", "a.zip"]))
def test_whatever_the_members_are_called(
    members: list[tuple[str, bytes]], packed: str, tmp_path: Path
) -> None:
    root = Path(tempfile.mkdtemp(dir=tmp_path))
    folder = root / "work" / "data"
    folder.mkdir(parents=True)
    (root / "work" / "outside").write_text("old")
    (tarred if packed == "a.tar" else zipped)(root / packed, members)
    with read_or_told(packed, "file name"):
        assert unpack(root / packed, folder) <= len(members)
    for path in root.rglob("*"):
        assert not path.is_symlink() and (path.is_file() or path.is_dir())
        inside = path.is_relative_to(folder)
        assert inside or path.name in (packed, "work", "data", "outside")
        if inside and path.is_file():
            assert path.read_bytes() == b"new" and path.stat().st_mode & 0o7111 == 0
    assert (root / "work" / "outside").read_text() == "old"
    shutil.rmtree(root)


@pytest.mark.parametrize("packed", ["a.tar.gz", "a.zip"])
def test_a_bomb_is_refused_before_it_fills_the_disk(
    packed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    zeros = bytes(5_000_000)
    if packed == "a.zip":
        with zipfile.ZipFile(tmp_path / packed, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("zeros", zeros)
    else:
        with tarfile.open(tmp_path / packed, "w:gz") as tar:
            info = tarfile.TarInfo("zeros")
            info.size = len(zeros)
            tar.addfile(info, io.BytesIO(zeros))
    assert (tmp_path / packed).stat().st_size < 10_000
    usage = type("Usage", (), {"free": 1_000_000})
    with monkeypatch.context() as patch:
        patch.setattr(archives.shutil, "disk_usage", lambda _: usage)
        with pytest.raises(UserError, match=r"'zeros' unpacks to 0\.01 GB, more than the disk"):
            unpack(tmp_path / packed, tmp_path / "data")
    assert not (tmp_path / "data" / "zeros").exists()
    assert unpack(tmp_path / packed, tmp_path / "data") == 1
