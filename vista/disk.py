"""Files that a power cut leaves whole or absent."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path


def force_to_disk(path: Path) -> None:
    """Return when the content of a file, or the entries of a folder, would survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def force_all_to_disk(folder: Path) -> None:
    """Do `force_to_disk` for a folder and all that is in it.

    Together: a file system writes its journal once for many, 20 times faster than one by one.
    """
    with ThreadPoolExecutor(16) as pool:
        for _ in pool.map(force_to_disk, [folder, *folder.rglob("*")]):
            pass


def write_synced(path: Path, content: bytes, beside: Path) -> None:
    """Write `content` next to `beside`, force it to the disk and rename it to `path`.

    Not next to `path`: what a kill leaves there would count as a file of the artifact.
    """
    temporary = beside.with_name(f"{beside.name}.unfinished")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    force_to_disk(path.parent)
