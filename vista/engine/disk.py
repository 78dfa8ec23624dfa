"""Writing files so that a power cut leaves them whole or absent; messages about full disks."""

from __future__ import annotations

import errno
import os
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

_FULL = (errno.ENOSPC, errno.EDQUOT)
_LITTLE = 2**20  # bytes; a disk with less to spare counts as full
_NO_FOLDER = "No usable temporary directory"  # as tempfile begins its error


def force_to_disk(path: Path) -> None:
    """Flush the content of a file, or the entries of a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def force_all_to_disk(folder: Path) -> None:
    """Flush a folder and everything in it to the disk.

    In parallel: the file system then commits its journal once for many files, 20 times faster.
    """
    with ThreadPoolExecutor(16) as pool:
        for _ in pool.map(force_to_disk, [folder, *folder.rglob("*")]):
            pass


def write_synced(path: Path, content: bytes, beside: Path) -> None:
    """Write `content` next to `beside`, force it to the disk and rename it to `path`.

    Not next to `path`, where a file left by a kill would count as one of the artifact.
    """
    temporary = beside.with_name(f"{beside.name}.unfinished")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    force_to_disk(path.parent)


def full_disk(error: BaseException, output: Path) -> str | None:
    """Return a message that names the full disk; None if `error` has another cause.

    The disk is that of the file that the error names. If it names none, it is the results' disk or
    that of temporary files, whichever is full now; if the job has freed space since and neither is,
    the message names both, the one with less space first.

    Args:
        error: The error that ended the job.
        output: A file that the job was to write.
    """
    if isinstance(error, OSError) and str(error.strerror).startswith(_NO_FOLDER):
        return (
            "no folder for temporary files can be written to; set TMPDIR to a folder with free "
            "space and run snakemake again."
        )
    cause = error
    while not _is_of_full_disk(cause):
        if cause.__cause__ is None:
            return None
        cause = cause.__cause__
    results, temporary = _existing(output), _temporary_folder()
    named = cause.filename if isinstance(cause, OSError) else None
    if isinstance(named, str | bytes | os.PathLike):
        folder = _existing(Path(os.fsdecode(named)))
        same = (other for other in (results, temporary) if _device(other) == _device(folder))
        full = [next(same, folder)]
    elif _device(results) == _device(temporary):
        full = [results]
    else:
        folders = sorted([results, temporary], key=_free_bytes)
        full = [folder for folder in folders if _free_bytes(folder) < _LITTLE] or folders
    names = {temporary: f"{temporary}, where temporary files go", results: str(output)}
    places = [names.get(folder, str(folder)) for folder in full]
    quota = " or your quota there" if getattr(cause, "errno", None) == errno.EDQUOT else ""
    elsewhere = ", or set TMPDIR to a folder on another disk," if temporary in full else ""
    return (
        f"no space left on the disk of {', or on that of '.join(places)}{quota}. Nothing finished "
        f"was lost: free some space{elsewhere} and run snakemake again."
    )


def _is_of_full_disk(error: BaseException) -> bool:
    if isinstance(error, OSError):
        return error.errno in _FULL
    # Rust libraries, e.g. safetensors, raise other types with the number in the text.
    return any(f"(os error {number})" in str(error) for number in _FULL)


def _existing(path: Path) -> Path:
    """Return the nearest folder above `path` that exists."""
    folder = path.absolute()
    while not folder.is_dir():
        folder = folder.parent
    return folder


def _temporary_folder() -> Path:
    try:
        return Path(tempfile.gettempdir()).absolute()
    except FileNotFoundError:  # tempfile tries to write a file there
        return Path(os.environ.get("TMPDIR") or "/tmp").absolute()


def _device(folder: Path) -> int:
    return folder.stat().st_dev if folder.exists() else -1


def _free_bytes(folder: Path) -> int:
    """Return the bytes that a user may still write; 0 if no inode is free."""
    try:
        disk = os.statvfs(folder)
    except OSError:
        return 0
    return 0 if disk.f_files and not disk.f_favail else disk.f_bavail * disk.f_frsize
