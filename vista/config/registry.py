"""What is registered by a file of its own: encoder families, judges, methods, SAE architectures.

A new entry is a new file and no line elsewhere; its name is the file's.
"""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).parents[1]


def names_in(folder: Path) -> list[str]:
    """Return the names of the entries in a folder, sorted."""
    return sorted(path.stem for path in folder.glob("*.py") if path.stem != "__init__")


def known_name(name: str, folder: Path, what: str) -> str:
    """Return a name that has an entry. Raises ValueError that lists those of the folder."""
    if name not in (known := names_in(folder)):
        raise ValueError(f"{what} {name!r} is unknown; choose one of {', '.join(known)}")
    return name
