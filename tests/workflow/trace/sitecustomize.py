"""Notes which functions of the package each stage calls, in a file of the folder VISTA_TRACE.

Python imports a module of this name when it starts, if its folder is on PYTHONPATH.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
from types import CodeType, FrameType
from typing import Any

FOLDER = os.environ.get("VISTA_TRACE", "")
PACKAGE = f"{os.sep}vista{os.sep}"
_called: set[CodeType] = set()
_foreign: set[CodeType] = set()


def _ours(file: str) -> bool:
    """Whether a file belongs to the package, which may be installed."""
    _, installed, rest = f"{os.sep}{file}".rpartition(f"{os.sep}site-packages{os.sep}")
    return rest.startswith(PACKAGE[1:]) if installed else PACKAGE in file


def _note(frame: FrameType, event: str, _: Any) -> None:
    code = frame.f_code
    if code in _called or code in _foreign:
        return
    if not _ours(code.co_filename):
        _foreign.add(code)
    elif not _imports(frame):
        _called.add(code)


def _imports(frame: FrameType | None) -> bool:
    """Whether a call is part of importing a module of the package: then it makes a constant."""
    while frame is not None:
        code = frame.f_code
        if code.co_name == "<module>" and _ours(code.co_filename):
            return True
        frame = frame.f_back
    return False


def _write() -> None:
    sys.settrace(None)
    stage = sys.argv[1] if len(sys.argv) > 1 else ""
    names = sorted(f"{code.co_filename}:{code.co_qualname}" for code in _called)
    with open(os.path.join(FOLDER, f"{stage}.{os.getpid()}"), "w", encoding="utf-8") as file:
        file.write("\n".join(names))


if FOLDER:
    threading.settrace(_note)
    sys.settrace(_note)
    atexit.register(_write)
