"""Files that are either whole or absent, and the errors about damaged ones.

A file is written beside its place, forced to the disk and renamed; a killed writer leaves only
temporary files, which the next `sweep` removes.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np

from vista.engine import artifacts
from vista.engine.disk import force_to_disk
from vista.errors import UserError

_TEMPORARY = ".tmp"
_BLOCK = 1 << 24


def crc32c(data: bytes | np.ndarray[Any, Any], start: int = 0) -> int:
    """Return the CRC-32C of `data`, continuing from `start`. 12 GB/s with the C library."""
    return int(google_crc32c.extend(start, data))


@dataclass(frozen=True)
class FileSum:
    """Size in bytes and CRC-32C of one whole file."""

    size: int
    crc32c: int


def publish(path: Path, parts: Iterable[bytes], *, sync: bool = True) -> FileSum:
    """Write the bytes of `parts` to `path`: temporary file, fsync, rename.

    `sync=False` leaves out the fsync, for files whose loss a resumed writer notices and mends.
    Raises UserError where the disk is full or the folder cannot be written.
    """
    # Process and thread in the name: two writers never share a temporary file.
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}{_TEMPORARY}")
    size, crc = 0, 0
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            for part in parts:
                file.write(part)
                size += len(part)
                crc = crc32c(part, crc)
            if sync:
                file.flush()
                os.fsync(file.fileno())
        os.replace(temporary, path)
        if sync:
            force_to_disk(path.parent)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise UserError(
            f"{path} cannot be written: {error.strerror or error}. Free space or mend the folder's "
            "rights, then run snakemake again: finished shards are kept."
        ) from error
    return FileSum(size, crc)


def publish_json(path: Path, value: Any, *, sync: bool = True) -> FileSum:
    """Write `value` as JSON with sorted keys, the way `publish` does."""
    text = json.dumps(value, sort_keys=True, indent=1, allow_nan=False) + "\n"
    return publish(path, [text.encode()], sync=sync)


def sum_file(path: Path) -> FileSum:
    """Return size and CRC-32C of the file at `path`. Raises OSError."""
    size, crc = 0, 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            size += len(block)
            crc = crc32c(block, crc)
    return FileSum(size, crc)


def sweep(folder: Path) -> None:
    """Remove the temporary files that killed writers left below `folder`."""
    for path in folder.rglob(f".*{_TEMPORARY}"):
        path.unlink(missing_ok=True)


def read_json(path: Path) -> Any:
    """Return the JSON value in `path`. Raises UserError where it is missing or damaged."""
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise damaged(path, "the file is missing") from error
    except (OSError, ValueError, RecursionError) as error:
        raise damaged(path, f"it is no readable JSON ({error})") from error


def damaged(path: Path, why: str) -> UserError:
    """Return the error for a damaged or missing file of a store, naming what to rebuild."""
    return artifacts.damaged(path, why, _artifact_folder(path))


def _artifact_folder(path: Path) -> Path:
    """Return the folder to delete: the artifact around `path`, else its store, else its folder."""
    folders = list(path.parents)
    for folder in folders:
        if (folder / artifacts.MANIFEST).is_file():
            return folder
    for folder in (path, *folders):
        if folder.suffix == ".zarr":
            return folder
    return path.parent
