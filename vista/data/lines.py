"""Text files that hold one thing a line."""

from __future__ import annotations

from pathlib import Path

from vista.errors import UserError


def read_lines(path: Path, limit: int | None = None, what: str = "document") -> list[str]:
    """The non-empty lines of a text file; UserError if it cannot be read or has none."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text ({error.reason} at {error.start})") from error
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    if not lines:
        raise UserError(f"{path} holds no text: one {what} a line is expected")
    return lines[:limit]
