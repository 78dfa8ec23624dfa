"""The user's own files and folders that stages read: what there is, and whether it has changed."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path


def files_below(folder: Path) -> list[str]:
    """Return the paths of all files below a folder, relative to it and sorted.

    Links to files count as files; linked folders below it are not followed, since they may lead
    back.
    """
    names: list[str] = []
    for place, _, files in os.walk(folder):
        below = os.path.relpath(place, folder)
        names += [name if below == "." else f"{below}/{name}" for name in files]
    return sorted(name for name in names if (folder / name).is_file())


def state_of(paths: Iterable[str]) -> str:
    """Return a hash of the names, sizes and times of change of files and of all files in folders.

    It tells in milliseconds whether their content may have changed. A path that is not there counts
    as an empty folder.
    """
    state = hashlib.sha256()
    for path in map(Path, paths):
        for name in [""] if path.is_file() else files_below(path):
            found = (path / name if name else path).stat()
            state.update(f"{name}\0{found.st_size}\0{found.st_mtime_ns}\n".encode(errors="replace"))
        state.update(b"\n")
    return state.hexdigest()[:16]


def digest_user_file(path: Path) -> str:
    """Return the SHA-256 of a file; of a folder, a hash of its place and all names and contents.

    A folder's place counts since artifacts link to it. What is not there has the digest "".
    """
    if path.is_file():
        return digest_file(path)
    if not path.is_dir():
        return ""
    whole = hashlib.sha256(os.fsencode(path.absolute()))
    for name in files_below(path):
        whole.update(b"\n" + os.fsencode(name) + b"\0" + digest_file(path / name).encode())
    return whole.hexdigest()


def digest_file(path: Path) -> str:
    """Return the SHA-256 of the file at `path` in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
