"""Artifacts: the folders that stages publish, and the manifests that make them count.

An artifact is `results/<stage>/<name>-<id>/`. Its `manifest.json` is written last: a folder
without one is no artifact. `checksums.json` beside it lists every file with its size and SHA-256;
the artifact's digest is the hash of that list, so equal bytes have an equal digest wherever and
whenever they were made.

A stage writes into a work folder under `results/.work/` and the finished folder is renamed into
place. The work folder outlives a kill, so that a stage may resume its own shards or checkpoints;
it is emptied when settings, inputs or code have changed since.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from vista.errors import UserError

MANIFEST = "manifest.json"
CHECKSUMS = "checksums.json"
# A copy of the manifest that Snakemake does not know and so does not delete before a job: when a
# job is planned again but nothing that it depends on has changed, the copy is put back.
MEMO = "memo.json"
_OWN = frozenset({MANIFEST, CHECKSUMS, MEMO})
WORK = ".work"


def canonical_json(value: Any) -> str:
    """Return the one JSON text of `value`: sorted keys, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def with_options(
    settings: Mapping[str, Any], options: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """Return settings with the options of each of their parts put in."""
    return {
        key: {**value, **options[key]} if key in options else value
        for key, value in settings.items()
    }


def digest_text(text: str) -> str:
    """Return the SHA-256 of `text` in hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()


def digest_file(path: Path) -> str:
    """Return the SHA-256 of the file at `path` in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True)
class Artifact:
    """A finished artifact, read through its manifest.

    `digest` names the bytes of all its files; `settings` and `stage` are what made it.
    """

    path: Path
    manifest: Mapping[str, Any]
    checksums: Mapping[str, Mapping[str, Any]]

    @property
    def stage(self) -> str:
        return str(self.manifest["stage"])

    @property
    def settings(self) -> dict[str, Any]:
        return dict(self.manifest["settings"])

    @property
    def digest(self) -> str:
        return str(self.manifest["digest"])

    @property
    def inputs(self) -> dict[str, Any]:
        """The digests of this artifact's inputs by role."""
        return dict(self.manifest["inputs"])

    def file(self, name: str) -> Path:
        """Return the path of the file `name` after checking its SHA-256.

        Raises UserError where the file is missing or differs from the manifest.
        """
        path = self._sized(name)
        if digest_file(path) != self.checksums[name]["sha256"]:
            raise self._damaged(path, "its content differs from the manifest")
        return path

    def folder(self, name: str) -> Path:
        """Return the path of the folder `name` after checking every file below it."""
        for member in self._members(name):
            self.file(member)
        return self.path / name

    def store(self, name: str) -> Path:
        """Return the path of the Zarr store `name` after checking that each file is there.

        Only existence and size are checked: the chunks carry checksums of their own, which the
        store's reader verifies as it reads. A folder of fetched images is opened this way too: to
        read all of them twice would take longer than to use them, and `vista verify` does it.
        """
        for member in self._members(name):
            self._sized(member)
        return self.path / name

    def verify(self) -> None:
        """Check every file of the artifact against the manifest. Raises UserError."""
        for name in self.checksums:
            self.file(name)

    def _members(self, name: str) -> list[str]:
        members = [each for each in self.checksums if each.startswith(f"{name}/")]
        if not members:
            raise self._damaged(self.path / name, "the manifest lists nothing below it")
        return members

    def _sized(self, name: str) -> Path:
        path = self.path / name
        if name not in self.checksums:
            raise self._damaged(path, "the manifest does not list it")
        if not path.is_file():
            raise self._damaged(path, "the file is missing")
        size, expected = path.stat().st_size, self.checksums[name]["bytes"]
        if size != expected:
            raise self._damaged(path, f"it has {size} bytes, {expected} were written")
        return path

    def _damaged(self, path: Path, why: str) -> UserError:
        return damaged(path, why, self.path)


def damaged(path: Path, why: str, artifact: Path) -> UserError:
    """Return the error for a damaged file: what is wrong, and how to rebuild the artifact."""
    return UserError(
        f"{path} is damaged: {why}. Rebuild it: rm -r '{artifact}', then run snakemake again."
    )


def open_artifact(path: Path, stage: str | None = None) -> Artifact:
    """Open the artifact in the folder `path`.

    Raises UserError where there is no manifest, where manifest or checksum list are damaged, or
    where the artifact is not one of `stage`.
    """
    manifest_path = path / MANIFEST
    if not manifest_path.is_file():
        raise UserError(f"{path} is no finished artifact: it has no {MANIFEST}. Run snakemake.")
    try:
        manifest = json.loads(manifest_path.read_bytes())
        for key in ("stage", "settings", "inputs", "code", "digest"):
            manifest[key]
        listing = (path / CHECKSUMS).read_bytes()
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise damaged(manifest_path, f"it cannot be read ({error!r})", path) from error
    if hashlib.sha256(listing).hexdigest() != manifest["digest"]:
        raise damaged(path / CHECKSUMS, "its content differs from the manifest", path)
    if stage is not None and manifest["stage"] != stage:
        raise UserError(f"{path} holds a {manifest['stage']!r} artifact, expected {stage!r}.")
    return Artifact(path, manifest, json.loads(listing))


@dataclass(frozen=True)
class Job:
    """What a stage receives: its own settings, its opened inputs and a folder to write into."""

    stage: str
    settings: dict[str, Any]
    inputs: dict[str, Artifact | list[Artifact]]
    work: Path
    threads: int = 1

    def input(self, role: str) -> Artifact:
        """Return the one input artifact of `role`."""
        found = self.inputs[role]
        assert isinstance(found, Artifact), f"{self.stage}: input {role} is a list"
        return found

    def input_list(self, role: str) -> list[Artifact]:
        """Return the input artifacts of `role`, in the order of the plan."""
        found = self.inputs[role]
        assert isinstance(found, list), f"{self.stage}: input {role} is not a list"
        return found

    def optional(self, role: str) -> Artifact | None:
        """Return the input artifact of `role`, or None where the plan gives none."""
        return self.input(role) if role in self.inputs else None


@dataclass(frozen=True)
class Record:
    """All that the bytes of an artifact depend on: two equal records, one result."""

    stage: str
    settings: Mapping[str, Any]
    inputs: Mapping[str, Any]
    code: str
    packages: Mapping[str, str]

    def as_dict(self) -> dict[str, Any]:
        return {
            "stage": self.stage,
            "settings": dict(self.settings),
            "inputs": dict(self.inputs),
            "code": self.code,
            "packages": dict(self.packages),
        }


def package_versions(names: frozenset[str]) -> dict[str, str]:
    """Return the installed versions of the top-level modules `names`, and Python's own."""
    versions = {"python": ".".join(map(str, sys.version_info[:3]))}
    owners = metadata.packages_distributions()
    for name in sorted(names):
        for owner in owners.get(name, []):
            versions[owner] = metadata.version(owner)
    return versions


@contextlib.contextmanager
def publishing(results: Path, stage: str, node: str, record: Record) -> Iterator[Path | None]:
    """Give a work folder for the artifact `<stage>/<node>` and publish it on a clean exit.

    Yields None where the artifact is there already: same settings, same input bytes, same code,
    same package versions. Otherwise yields the work folder, which still holds what an interrupted
    try of the very same record left there. One process at a time works on an artifact; a second
    one waits for the first, which a killed workflow may have left running.

    Raises UserError where the stage's output cannot be written.
    """
    out = results / stage / node
    work = results / WORK / stage / node
    work.parent.mkdir(parents=True, exist_ok=True)
    with _locked(work.with_name(f"{node}.lock"), out):
        if _restore(out, record):
            yield None
            return
        marker = work.with_name(f"{node}.record.json")
        _prepare(work, marker, canonical_json(record.as_dict()))
        yield work
        _publish(work, out, record)
        marker.unlink()


def _restore(out: Path, record: Record) -> bool:
    """Put the manifest of an artifact back where nothing that it depends on has changed."""
    memo = out / MEMO
    try:
        manifest = json.loads(memo.read_bytes())
        if {key: manifest[key] for key in record.as_dict()} != record.as_dict():
            return False
        listing = (out / CHECKSUMS).read_bytes()
        if hashlib.sha256(listing).hexdigest() != manifest["digest"]:
            return False
        Artifact(out, manifest, json.loads(listing)).verify()
    except (OSError, ValueError, KeyError, TypeError, UserError):
        return False
    _write_synced(out / MANIFEST, memo.read_bytes())
    return True


def _prepare(work: Path, marker: Path, wanted: str) -> None:
    if not (work.is_dir() and marker.is_file() and marker.read_text() == wanted):
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        _write_synced(marker, wanted.encode())


def _publish(work: Path, out: Path, record: Record) -> None:
    names = sorted(path.relative_to(work).as_posix() for path in work.rglob("*") if path.is_file())
    clash = _OWN.intersection(names)
    assert not clash, f"{record.stage}: a stage may not write {sorted(clash)}"
    checksums = {
        name: {"bytes": (work / name).stat().st_size, "sha256": digest_file(work / name)}
        for name in names
    }
    listing = json.dumps(checksums, sort_keys=True, indent=1).encode()
    manifest = {**record.as_dict(), "digest": hashlib.sha256(listing).hexdigest()}
    text = (json.dumps(manifest, sort_keys=True, indent=1, allow_nan=False) + "\n").encode()
    _write_synced(work / CHECKSUMS, listing)
    _write_synced(work / MEMO, text)
    _clear(out)
    os.replace(work, out)
    # Last of all: from here on the artifact counts.
    _write_synced(out / MANIFEST, text)


def _clear(out: Path) -> None:
    """Leave an empty folder at `out`; what was there is unusable from the first removal on."""
    if out.exists():
        (out / MANIFEST).unlink(missing_ok=True)
        (out / MEMO).unlink(missing_ok=True)
        shutil.rmtree(out)
    out.mkdir(parents=True)


def _write_synced(path: Path, content: bytes) -> None:
    """Write `content` beside `path`, force it to the disk and rename it into place."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def _locked(path: Path, out: Path) -> Iterator[None]:
    """Hold the lock of one artifact; wait, and say so, while another process holds it."""
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            owner = file.read().strip() or "unknown"
            print(
                f"{out}: process {owner} is writing it; waiting until it ends.",
                file=sys.stderr,
                flush=True,
            )
            fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        file.truncate()
        file.write(str(os.getpid()))
        file.flush()
        yield
