"""The finished artifacts of a results folder, as they are at this moment, and their files.

Nothing here trusts the folder. A path is walked part by part without following links, only files
that a finished artifact's list names are opened, and a manifest that is damaged, huge or of the
wrong shape is left out with a note.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import stat
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any

from vista.engine.artifacts import CHECKSUMS, MANIFEST
from vista.explore.published import CONFIG, LARGEST_CONFIG, SAES, label_facts, sae_facts
from vista.report.catalogue import DIGEST, catalogue_of

_STAGE = re.compile(r"[a-z_]{1,100}")
_FOLDER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,240}")
# Folders of a results folder that hold no artifacts.
_NO_STAGES = frozenset(("logs", "benchmarks", "judgements", "orders", "links", "figures"))
# The parts of a manifest that the catalogue reads.
_READ = ("stage", "settings", "parents", "digest")
_FACTS = "facts"  # beside those: what is published of an SAE
_MOST_ARTIFACTS = 20_000
_LARGEST_MANIFEST = 8_000_000  # bytes
_LARGEST_LIST = 100_000_000  # bytes: 800,000 files
_MOST_NOTES = 20
_KEPT_LISTS = 64

Stamp = tuple[int, int, int]


class NotServed(LookupError):
    """A file is none of a finished artifact, or cannot be read; the text says which."""


@dataclass(frozen=True)
class Opened:
    """An open file of an artifact.

    Attributes:
        file: To be closed by whoever reads it.
        size: In bytes.
        stamp: Time of its last change, ns.
        digest: The start of the artifact's digest, as the catalogue has it.
    """

    file: FileIO
    size: int
    stamp: int
    digest: str


def open_below(root: Path, parts: Sequence[str]) -> FileIO:
    """Open a regular file below a folder. No part is a link, hidden or "..".

    Raises:
        NotServed: There is no such file.
    """
    if not parts or any(not _is_plain(part) for part in parts):
        raise NotServed("no such file")
    try:
        folder = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
        try:
            for part in parts[:-1]:
                below = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=folder)
                os.close(folder)
                folder = below
            # O_NONBLOCK: a named pipe would wait for its writer.
            descriptor = os.open(
                parts[-1], os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder
            )
        finally:
            os.close(folder)
    except (OSError, ValueError):
        raise NotServed("no such file") from None
    file = FileIO(descriptor, closefd=True)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        file.close()
        raise NotServed("no such file")
    return file


def _is_plain(part: str) -> bool:
    return part != "" and not part.startswith(".") and "/" not in part and "\0" not in part


def read_below(root: Path, parts: Sequence[str], most: int) -> bytes:
    """Return the content of a file below a folder, of at most `most` bytes.

    Raises:
        NotServed: There is no such file, or it is larger.
    """
    with open_below(root, parts) as file:
        try:
            content = file.read(most + 1)
        except OSError as error:
            raise NotServed("it cannot be read") from error
    if content is None or len(content) > most:
        raise NotServed(f"it has more than {most:,} bytes")
    return content


class Finished:
    """The finished artifacts of a results folder. Its methods may be called from several threads.

    Args:
        results: The results folder; it may be a link, what is below it may not.
    """

    def __init__(self, results: Path) -> None:
        self.results = Path(os.path.realpath(results))
        self._lock = threading.Lock()
        # By folder: the manifest, or why it is left out.
        self._read: dict[str, tuple[Stamp, Mapping[str, Any] | str]] = {}
        self._lists: OrderedDict[tuple[str, Stamp], Mapping[str, int]] = OrderedDict()
        self._made: tuple[Any, dict[str, Any]] | None = None

    def catalogue(self, *, live: bool) -> dict[str, Any]:
        """Return the catalogue of what is finished now, as `catalogue_of` makes it; with what
        `vista.explore.published` says of SAEs and labels."""
        with self._lock:
            stamps, notes = self._scan()
            key = (live, tuple(stamps.items()), tuple(notes))
            if self._made is None or self._made[0] != key:
                self._made = key, self._catalogue(stamps, notes, live)
            return self._made[1]

    def _catalogue(
        self, stamps: Mapping[str, Stamp], notes: list[str], live: bool
    ) -> dict[str, Any]:
        self._read = {path: self._read[path] for path in self._read if path in stamps}
        manifests = {}
        for path, stamp in stamps.items():
            manifest = self._manifest(path, stamp)
            if isinstance(manifest, str):
                notes.append(f"{path} is left out: {manifest}")
            else:
                manifests[path] = manifest
        reports = sorted(
            (path for path in manifests if path.startswith("report/")),
            key=lambda path: (stamps[path], path),
            reverse=True,
        )
        if len(notes) > _MOST_NOTES:
            notes = [*notes[:_MOST_NOTES], f"and {len(notes) - _MOST_NOTES} more notes like these"]
        catalogue = catalogue_of(manifests, reports, live=live, notes=notes)
        for entry in catalogue["artifacts"]:
            entry.update(manifests[entry["folder"]][_FACTS])
        return catalogue

    def _scan(self) -> tuple[dict[str, Stamp], list[str]]:
        """Return the stamps of all manifests by folder, and notes of what is left out."""
        stamps: dict[str, Stamp] = {}
        notes: list[str] = []
        for stage in _entries(self.results):
            if not _STAGE.fullmatch(stage.name) or stage.name in _NO_STAGES:
                continue
            if stage.is_symlink():
                notes.append(f"{stage.name} is left out: it is a link")
                continue
            for folder in _entries(Path(stage.path)):
                path = f"{stage.name}/{folder.name}"
                if not _FOLDER.fullmatch(folder.name):
                    continue
                if folder.is_symlink():
                    notes.append(f"{path} is left out: it is a link")
                elif (stamp := _stamp(os.path.join(folder.path, MANIFEST))) is not None:
                    if len(stamps) == _MOST_ARTIFACTS:
                        notes.append(f"artifacts beyond the first {_MOST_ARTIFACTS:,} are left out")
                        return stamps, notes
                    stamps[path] = stamp
        return stamps, notes

    def _manifest(self, path: str, stamp: Stamp) -> Mapping[str, Any] | str:
        """Return an artifact's manifest, or why it is left out."""
        kept = self._read.get(path)
        if kept is None or kept[0] != stamp:
            kept = self._read[path] = stamp, self._parsed(path)
        return kept[1]

    def _parsed(self, path: str) -> Mapping[str, Any] | str:
        stage, _, folder = path.partition("/")
        try:
            text = read_below(self.results, [stage, folder, MANIFEST], _LARGEST_MANIFEST)
            manifest = json.loads(text)
        except NotServed as error:
            return f"its manifest: {error}"
        except (ValueError, RecursionError):
            return "its manifest is no JSON"
        if not isinstance(manifest, dict) or not isinstance(manifest.get("digest"), str):
            return "its manifest is none"
        if manifest.get("stage") != stage:
            return "its manifest is of another stage"
        facts = self._facts(stage, folder, manifest.get("settings"))
        return {key: manifest[key] for key in _READ if key in manifest} | {_FACTS: facts}

    def _facts(self, stage: str, folder: str, settings: Any) -> dict[str, Any]:
        if stage == "import_labels":
            return label_facts(settings)
        if stage not in SAES:
            return {}
        try:
            return sae_facts(read_below(self.results, [stage, folder, CONFIG], LARGEST_CONFIG))
        except NotServed:
            return {}

    def manifest(self, path: str) -> Mapping[str, Any]:
        """Return the manifest of the finished artifact STAGE/NAME-ID, the parts that are read.

        Raises:
            NotServed: There is none.
        """
        return self._current(path)[0]

    def _current(self, path: str) -> tuple[Mapping[str, Any], Stamp]:
        stage, _, folder = path.partition("/")
        if not _STAGE.fullmatch(stage) or stage in _NO_STAGES or not _FOLDER.fullmatch(folder):
            raise NotServed("no such artifact")
        with self._lock:
            stamp = _stamp(self.results / stage / folder / MANIFEST)
            manifest = None if stamp is None else self._manifest(path, stamp)
        if stamp is None or manifest is None:
            raise NotServed("there is no such finished artifact")
        if isinstance(manifest, str):
            raise NotServed(f"{path} is left out: {manifest}")
        return manifest, stamp

    def files(self, path: str) -> Mapping[str, int]:
        """Return the files of the finished artifact STAGE/NAME-ID with their sizes in bytes.

        Raises:
            NotServed: There is no such artifact, or its list of files is damaged.
        """
        manifest, stamp = self._current(path)
        with self._lock:
            files = self._lists.get((path, stamp))
            if files is None:
                files = self._listed(path, str(manifest["digest"]))
                self._lists[path, stamp] = files
                if len(self._lists) > _KEPT_LISTS:
                    self._lists.popitem(last=False)
            self._lists.move_to_end((path, stamp))
        return files

    def _listed(self, path: str, digest: str) -> Mapping[str, int]:
        damaged = NotServed(f"{path}: its list of files is damaged; make it again")
        text = read_below(self.results, [*path.split("/"), CHECKSUMS], _LARGEST_LIST)
        if hashlib.sha256(text).hexdigest() != digest:
            raise damaged
        try:
            listed = json.loads(text)
            return {str(name): int(entry["bytes"]) for name, entry in listed.items()}
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            raise damaged from None

    def open(self, path: str, name: str) -> Opened:
        """Open a file of the finished artifact STAGE/NAME-ID.

        Args:
            path: The artifact's folder.
            name: As the artifact's list of files has it.

        Raises:
            NotServed: The artifact is not finished, has no such file, or it is gone.
        """
        if name not in self.files(path):
            raise NotServed(f"{path} has no such file")
        digest = str(self.manifest(path)["digest"])[:DIGEST]
        try:
            file = open_below(self.results, [*path.split("/"), *name.split("/")])
        except NotServed:
            raise NotServed(f"{path} is damaged: a file of it is missing") from None
        status = os.fstat(file.fileno())
        return Opened(file, status.st_size, status.st_mtime_ns, digest)


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """Return the folders in a folder, and links to such, by name; none if it cannot be read."""
    entries = []
    with contextlib.suppress(OSError), os.scandir(folder) as listed:
        entries = [entry for entry in listed if _is_folder(entry)]
    return sorted(entries, key=lambda entry: entry.name)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def _stamp(path: Path | str) -> Stamp | None:
    """Return what changes when a file does; None where there is no regular file."""
    try:
        status = os.stat(path, follow_symlinks=False)
    except (OSError, ValueError):
        return None
    if not stat.S_ISREG(status.st_mode):
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino
