"""Pickles of plain values: lists, dicts, texts and numbers, and nothing else.

A pickle can name any function and have it called. Here every name is refused before it is looked
up, so that nothing is imported and nothing runs.
"""

from __future__ import annotations

import pickle
import pickletools
from pathlib import Path
from typing import IO, Any, NoReturn

from vista.errors import UserError, reason_of

_LARGEST = 1 << 30  # bytes
# They ask for a name, call what was named, or set an object's state.
_NAMES = frozenset(
    {
        *("GLOBAL", "STACK_GLOBAL", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "REDUCE", "BUILD"),
        *("EXT1", "EXT2", "EXT4", "PERSID", "BINPERSID", "NEXT_BUFFER"),
    }
)


class _NamesError(pickle.UnpicklingError):
    """The pickle names something that is no plain value."""


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str, /) -> NoReturn:
        raise _NamesError(f"it names {module[:80]!r}, {name[:80]!r}")

    def persistent_load(self, pid: Any, /) -> NoReturn:
        raise _NamesError("it names an object outside the file")


def load_plain(path: Path) -> Any:
    """Return the value of a pickle of plain values; texts of Python 2 are read as UTF-8.

    Raises UserError where the file cannot be read, is no pickle, is larger than 1 GiB, or names
    anything that is no plain value.
    """
    try:
        size = path.stat().st_size
        if size > _LARGEST:
            raise UserError(f"{path} has {size:,} bytes, more than any file of expressions")
        with path.open("rb") as file:
            _check(file, size)
            file.seek(0)
            return _PlainUnpickler(file, encoding="utf-8", errors="replace").load()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {reason_of(error)}") from error
    except _NamesError as error:
        raise UserError(
            f"{path} holds more than lists, texts and numbers ({error}), so it is not read: "
            "convert it to JSON where you trust it"
        ) from error
    # Of a damaged file the unpickler raises whatever its opcodes run into.
    except (
        pickle.UnpicklingError,
        ArithmeticError,
        AttributeError,
        EOFError,
        LookupError,
    ) as error:
        raise UserError(f"{path} is no whole pickle: {reason_of(error)}") from error
    except (MemoryError, TypeError, ValueError) as error:
        raise UserError(f"{path} is no whole pickle: {reason_of(error)}") from error


def _check(file: IO[bytes], size: int) -> None:
    """Read the opcodes without running them; refuse names, and places in the memo beyond the
    file's length, for which the unpickler would take memory at once."""
    for opcode, argument, _ in pickletools.genops(file):
        if opcode.name in _NAMES:
            raise _NamesError(f"opcode {opcode.name}")
        if opcode.name in ("PUT", "LONG_BINPUT") and int(argument or 0) > size:
            raise pickle.UnpicklingError("its memo is longer than the file")
