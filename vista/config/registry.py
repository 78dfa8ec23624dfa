"""Registries by file: encoder families, judges, methods, SAE architectures.

An entry is one file, and the file's name is the entry's.
"""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).parents[1]


def names_in(folder: Path) -> list[str]:
    """Return the names of the entries in a folder, sorted."""
    return sorted(path.stem for path in folder.glob("*.py") if path.stem != "__init__")


def known_name(name: str, folder: Path, what: str) -> str:
    """Return `name` if it has an entry, else raise ValueError that lists the entries."""
    if name not in (known := names_in(folder)):
        raise ValueError(f"{what} {name!r} is unknown; choose one of {', '.join(known)}")
    return name
