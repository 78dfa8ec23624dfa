"""Files of packages, or the user's own: from the settings of a source to a path."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vista.engine.artifacts import Artifact, digest_file
from vista.errors import UserError

_SHOWN = 5  # names of files in a message


def package_of(packages: Sequence[Artifact], package: str | None) -> Artifact | None:
    """Return the package of a source, as `Packages.numbered` numbers it; None: it names none."""
    return None if package is None else packages[int(package)]


def package_file(package: Artifact | None, file: str, key: str) -> Path:
    """Return the path of a file after checking its SHA-256.

    Args:
        package: The artifact of stage fetch_package or join_package that holds the file; None: it
            is the user's.
        file: The file's path in the package, or else the user's own.
        key: The setting that names the file, for messages.

    Raises UserError where there is no such file, or where it differs from its checksum.
    """
    if package is None:
        path = Path(file)
        if not path.is_file():
            raise UserError(f"{key}: {path} is not a file; correct it")
        return path
    contents = package_contents(package)
    if file not in contents:
        raise UserError(f"{key}: {_name(package)} has no file {file!r}; {_there(file, contents)}")
    if not _is_linked(package):
        return package.file(f"files/{file}")
    path = _linked(package) / file
    if not path.is_file() or digest_file(path) != contents[file]["sha256"]:
        raise UserError(f"{key}: {path} has changed since the run began; run snakemake again")
    return path


def only_file(package: Artifact, key: str) -> Path:
    """Return the path of the only file of a package after checking its SHA-256.

    Raises UserError where it has none or several, or where the file differs from its checksum.
    """
    contents = package_contents(package)
    if len(contents) != 1:
        raise UserError(
            f"{key}: {_name(package)} has {len(contents)} files where one is needed "
            f"({', '.join(sorted(contents)[:_SHOWN])}); let its `files` name one"
        )
    (file,) = contents
    return package_file(package, file, key)


def package_folder(package: Artifact, folder: str, key: str) -> Path:
    """Return the path of a folder of a package ("": of all its files).

    Existence and sizes of its files are checked, and not their contents, as of a folder of images.

    Raises UserError where there is no such folder, or where a file is not there any longer.
    """
    contents, start = package_contents(package), f"{folder.strip('/')}/" if folder else ""
    names = [name for name in contents if name.startswith(start)]
    if not names:
        raise UserError(
            f"{key}: {_name(package)} has no folder {folder!r}; {_there(folder, contents)}"
        )
    if not _is_linked(package):
        return package.store(f"files/{start}".rstrip("/"))
    root = _linked(package)
    for name in names:
        path = root / name
        if not path.is_file() or path.stat().st_size != contents[name]["bytes"]:
            raise UserError(f"{key}: {path} has changed since the run began; run snakemake again")
    return root / folder


def package_contents(package: Artifact) -> Mapping[str, Mapping[str, Any]]:
    """Return size (`bytes`) and `sha256` of each file of a package, by its path in it."""
    if _is_linked(package):
        contents: dict[str, dict[str, Any]] = json.loads(package.file("contents.json").read_bytes())
        return contents
    start = "files/"
    return {
        name.removeprefix(start): entry
        for name, entry in package.checksums.items()
        if name.startswith(start)
    }


def _is_linked(package: Artifact) -> bool:
    return "contents.json" in package.checksums


def _linked(package: Artifact) -> Path:
    link = package.path / "files"
    if not link.is_dir():
        raise UserError(
            f"the folder that {_name(package)} stands for is not where it was; put it back, or "
            f"rm -r '{package.path}' and run snakemake again"
        )
    return link.resolve()


def _name(package: Artifact) -> str:
    settings = package.settings["package"]
    if settings["kind"] == "joined":
        return f"package of the joined file {settings['file']}"
    if settings["kind"] == "folder":
        return f"package {settings['name']!r} (a folder)"
    return f"package {settings['package']} {settings['version']}"


def _there(file: str, contents: Mapping[str, Any]) -> str:
    """Return what a package has instead: the most similar names, or else the first."""
    names = difflib.get_close_matches(file, contents, _SHOWN) or sorted(contents)[:_SHOWN]
    more = f" and {len(contents) - len(names):,} more" if len(contents) > len(names) else ""
    return f"it has {', '.join(names)}{more}"
