"""Text files with one entry a line."""

from __future__ import annotations

from pathlib import Path

from vista.errors import UserError
from vista.foreign.text import read_text


def read_lines(path: Path, limit: int | None = None, what: str = "document") -> list[str]:
    """The non-empty lines of a text file; UserError if it cannot be read or has none."""
    lines = [line for line in _stripped(path, what) if line]
    return lines[:limit]


def read_names(path: Path, what: str) -> list[str]:
    """The lines of a text file as numbered names: line 1 is name 0.

    Raises UserError if it cannot be read, has none, or has a blank line between others: dropping
    it would give all names after it another number.
    """
    lines = _stripped(path, what)
    while not lines[-1]:
        lines.pop()
    if "" in lines:
        raise UserError(
            f"{path}: line {lines.index('') + 1} is blank, and the line is the number of a {what}: "
            "fill or remove it"
        )
    return lines


def _stripped(path: Path, what: str) -> list[str]:
    lines = [line.strip() for line in read_text(path).split("\n")]
    if not any(lines):
        raise UserError(f"{path} holds no text: one {what} a line is expected")
    return lines
