"""A disk that can be filled."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

_DISK_MB = 512


class Disk:
    """A small file system of its own that can be filled: a tmpfs, where mounting is allowed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True)
        options = f"size={_DISK_MB}m"
        command = ["mount", "-t", "tmpfs", "-o", options, "faults", str(folder)]
        try:
            self.mounted = subprocess.run(command, capture_output=True).returncode == 0
        except FileNotFoundError:
            self.mounted = False

    def leave(self, free: int) -> None:
        """Leave about `free` bytes of space."""
        used = shutil.disk_usage(self.folder).used
        self._resize(f"{-(-(used + free) // 1024)}k")

    def grow(self) -> None:
        self._resize(f"{_DISK_MB}m")

    def close(self) -> None:
        if self.mounted:
            subprocess.run(["umount", "-l", str(self.folder)], check=True)

    def _resize(self, size: str) -> None:
        command = ["mount", "-o", f"remount,size={size}", str(self.folder)]
        subprocess.run(command, check=True, capture_output=True)
