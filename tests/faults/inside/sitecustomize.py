"""What a campaign does to a stage from inside it.

Python imports a module of this name when it starts, if its folder is on PYTHONPATH. Only stages
act: each appends its file operations below the results to a trace, and does its fault if the
orders have one for it and no other stage was faster: at its nth operation (`at`), some seconds
after its start (`after`), or, for a file size limit (`limit`), at the first file that grows larger.

An operation is what may leave a file half done: opening to write, renaming, removing, making a
folder. It is counted, and a fault done, before it takes place.
"""

from __future__ import annotations

import builtins
import errno
import io
import json
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ORDER, TRACE = "VISTA_FAULT", "VISTA_FAULT_TRACE"
_OPERATIONS = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "shutil.rmtree")
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_RENAMERS = ("replace", "rename")


class Inside:
    """The trace of one stage, and its fault if the order is for it."""

    def __init__(self, manifest: str, trace: str, orders: list[dict[str, Any]]) -> None:
        place = Path(os.path.abspath(manifest))
        self.node = "/".join(place.parts[-3:-1])
        self.results = f"{place.parents[2]}/"
        self.order = next((each for each in orders if each["node"] == self.node), {})
        self.operations = 0
        self.tear = False
        self.trace = os.open(trace, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def start(self) -> None:
        for name in _RENAMERS:
            setattr(os, name, self._renaming(getattr(os, name)))
        builtins.open = io.open = self._opening(io.open)
        sys.addaudithook(self._audit)
        self._note("start", "")
        if "after" in self.order:
            timer = threading.Timer(self.order["after"], self._fault, ["time", ""])
            timer.daemon = True
            timer.start()
        if "limit" in self.order and self._claim("limit", ""):
            # What a write beyond it does: as many bytes as fit, and an error for the rest.
            resource.setrlimit(resource.RLIMIT_FSIZE, (self.order["limit"],) * 2)

    def _audit(self, event: str, args: tuple[Any, ...]) -> None:
        if event == "open":
            path, flags = self._below(args[0]), args[2]
            if path and flags & _WRITING:
                self._operation(event, path)
            elif path:
                self._note("read", path)
        elif event in _OPERATIONS and (path := self._below(args[0])):
            self._operation(event, path)

    def _operation(self, event: str, path: str) -> None:
        self.operations += 1
        if "at" in self.order and self.operations >= self.order["at"]:
            if self.order["kind"] == "torn_write":
                self.tear = event == "open"
            else:
                self._fault(event, path)
        self._note("operation", path)

    def _below(self, path: Any) -> str | None:
        """Return a path below the results, relative to them; logs do not count."""
        if not isinstance(path, (str, os.PathLike)):
            return None
        whole = os.path.abspath(os.fspath(path))
        if not isinstance(whole, str) or not whole.startswith(self.results):
            return None
        relative = whole.removeprefix(self.results)
        return None if relative.startswith("logs/") else relative

    def _note(self, what: str, path: str) -> None:
        # The limit would hold for the trace too.
        if "limit" not in self.order:
            os.write(self.trace, f"{self.node}\t{what}\t{path}\n".encode())

    def _claim(self, event: str, path: str) -> bool:
        """Say that the fault is done; False where it was done before."""
        try:
            file = os.open(self.order["fired"], os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        except FileExistsError:
            return False
        hit = {"node": self.node, "event": event, "path": path, "operation": self.operations}
        # The moment that was drawn.
        hit |= {key: self.order[key] for key in ("after", "limit", "hold") if key in self.order}
        os.write(file, json.dumps(hit).encode())
        os.close(file)
        return True

    def _fault(self, event: str, path: str) -> None:
        if not self._claim(event, path):
            return
        kind = self.order["kind"]
        # Snakemake was started as the leader of a process group of its own.
        if kind in ("kill_snakemake", "kill_both"):
            os.kill(os.getpgrp(), signal.SIGKILL)
        if kind in ("kill_stage", "kill_both"):
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(self.order.get("hold", 0))

    def _renaming(self, rename: Callable[..., None]) -> Callable[..., None]:
        def renamed(src: Any, dst: Any, **options: Any) -> None:
            rename(src, dst, **options)
            if path := self._below(dst):
                self._note("renamed", path)

        return renamed

    def _opening(self, plain: Callable[..., Any]) -> Callable[..., Any]:
        def opened(file: Any, *args: Any, **options: Any) -> Any:
            handle = plain(file, *args, **options)
            if self.tear and (path := self._below(file)):
                self.tear = False
                if self._claim("write", path):
                    self._tear(handle, str(file))
            return handle

        return opened

    def _tear(self, handle: Any, name: str) -> None:
        """Make the first write of a file end half-way."""
        whole = handle.write

        def half(data: Any) -> int:
            whole(data[: len(data) // 2])
            handle.flush()
            raise OSError(errno.EIO, os.strerror(errno.EIO), name)

        handle.write = half


def _stage_manifest(argv: list[str]) -> str | None:
    """Return the manifest that a stage is to make; None for any other program."""
    is_vista = any(os.path.basename(each) == "vista" for each in argv[:2])
    if is_vista and "--manifest" in argv:
        return argv[argv.index("--manifest") + 1]
    return None


if TRACE in os.environ and (_manifest := _stage_manifest(sys.orig_argv)):
    Inside(_manifest, os.environ[TRACE], json.loads(os.environ.get(ORDER, "[]"))).start()
