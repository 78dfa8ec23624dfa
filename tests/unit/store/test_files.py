"""A file is whole or absent, and an error names what to rebuild."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from vista.errors import UserError
from vista.store.files import FileSum, damaged, publish, read_json, sum_file, sweep


def test_publish_reports_what_it_wrote(tmp_path: Path) -> None:
    written = publish(tmp_path / "deep" / "file", [b"1234", b"56789"])

    assert (tmp_path / "deep" / "file").read_bytes() == b"123456789"
    # The check value of CRC-32C (Castagnoli): crc("123456789").
    assert written == FileSum(9, 0xE3069283) == sum_file(tmp_path / "deep" / "file")


def test_full_disk_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "file"
    target.write_bytes(b"old")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match=r"file cannot be written: No space left on device"):
        publish(target, [b"new"])

    assert [each.name for each in tmp_path.iterdir()] == ["file"]
    assert target.read_bytes() == b"old"


def test_killed_writers_leave_only_what_a_sweep_removes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", killed)
    with pytest.raises(KeyboardInterrupt):
        publish(tmp_path / "a" / "file", [b"half"])
    assert not (tmp_path / "a" / "file").exists()

    sweep(tmp_path)
    assert list((tmp_path / "a").iterdir()) == []


def test_damage_names_the_artifact_to_delete(tmp_path: Path) -> None:
    artifact = tmp_path / "results" / "features" / "clip-0123456789"
    inside = artifact / "features.zarr" / "features" / "c" / "0"
    inside.mkdir(parents=True)
    assert f"rm -r '{artifact / 'features.zarr'}'" in str(damaged(inside, "gone"))

    (artifact / "manifest.json").write_text("{}")
    assert f"rm -r '{artifact}'" in str(damaged(inside, "gone"))


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe", b"[" * 100_000])
def test_damaged_json_is_a_users_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "zarr.json").write_bytes(content)
    with pytest.raises(UserError, match="is damaged"):
        read_json(tmp_path / "zarr.json")
