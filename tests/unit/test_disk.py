"""Which disk is full: the one of the file that an error names, or the one without space."""

from __future__ import annotations

import errno
import tempfile
from pathlib import Path

import pytest
from safetensors import SafetensorError

from vista.engine import disk

FULL = OSError(errno.ENOSPC, "No space left on device")
RUST = SafetensorError("I/O error: No space left on device (os error 28)")


@pytest.fixture
def output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that a job writes, in a results folder that is not there yet; temporary files go
    to another folder."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    (tmp_path / "disk").mkdir()
    return tmp_path / "disk" / "results" / "stage" / "manifest.json"


def space(monkeypatch: pytest.MonkeyPatch, **free: int) -> None:
    """Let the folders of these names lie on disks of their own with so many bytes free."""
    monkeypatch.setattr(disk, "_free_bytes", lambda folder: free[folder.name])
    monkeypatch.setattr(disk, "_device", lambda folder: list(free).index(folder.name))


@pytest.mark.parametrize("error", [FULL, RUST], ids=["system", "rust"])
def test_a_full_folder_for_temporary_files_is_named_with_its_remedy(
    error: Exception, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    space(monkeypatch, disk=10**12, tmp=4096)
    sentence = disk.full_disk(error, output)
    assert sentence is not None
    assert f"on the disk of {tempfile.gettempdir()}, where temporary files go" in sentence
    assert "or set TMPDIR to a folder on another disk" in sentence
    assert str(output) not in sentence


@pytest.mark.parametrize("error", [FULL, RUST], ids=["system", "rust"])
def test_a_full_disk_of_results_is_named_without_TMPDIR(
    error: Exception, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    space(monkeypatch, disk=4096, tmp=10**12)
    sentence = disk.full_disk(error, output)
    assert sentence is not None
    assert f"on the disk of {output}." in sentence
    assert "TMPDIR" not in sentence


def test_both_are_named_where_neither_is_full_any_more(
    output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    space(monkeypatch, disk=10**12, tmp=10**9)
    sentence = disk.full_disk(FULL, output)
    assert sentence is not None
    assert f"where temporary files go, or on that of {output}." in sentence
    assert "TMPDIR" in sentence


def test_one_disk_of_both_is_that_of_the_results(output: Path) -> None:
    sentence = disk.full_disk(FULL, output)
    assert sentence is not None
    assert f"on the disk of {output}." in sentence


@pytest.mark.parametrize("name", ["tmp/spill", "disk/part", "elsewhere/cache.jsonl"])
def test_the_file_that_the_error_names_decides(
    name: str, tmp_path: Path, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    space(monkeypatch, disk=0, tmp=0, elsewhere=0)
    places = {
        "tmp/spill": f"{tmp_path / 'tmp'}, where temporary files go",
        "disk/part": str(output),
        "elsewhere/cache.jsonl": str(tmp_path / "elsewhere"),
    }
    error = OSError(errno.EDQUOT, "Disk quota exceeded", str(tmp_path / name))
    sentence = disk.full_disk(error, output)
    assert sentence is not None
    assert f"on the disk of {places[name]} or your quota there." in sentence
    assert ("TMPDIR" in sentence) is name.startswith("tmp")


def test_the_cause_of_an_error_is_looked_at(output: Path) -> None:
    error = RuntimeError("could not write")
    error.__cause__ = FULL
    assert disk.full_disk(error, output) is not None


def test_temporary_files_without_any_folder_are_told(output: Path) -> None:
    # As tempfile says it where it can write nowhere.
    error = FileNotFoundError(
        errno.ENOENT, "No usable temporary directory found in ['/tmp', '/var/tmp']"
    )
    sentence = disk.full_disk(error, output)
    assert sentence is not None and "set TMPDIR" in sentence


@pytest.mark.parametrize(
    "error", [ValueError("no space"), OSError(errno.EACCES, "Permission denied"), OSError("?")]
)
def test_other_errors_are_no_full_disk(error: Exception, output: Path) -> None:
    assert disk.full_disk(error, output) is None
