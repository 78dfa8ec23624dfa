"""Artifacts: the folders that stages publish, and the manifests that mark them as finished.

An artifact is `results/<stage>/<name>-<id>/`. Its `manifest.json` is written last: a folder
without one is no artifact. `checksums.json` beside it lists every file with its size and SHA-256;
the artifact's digest is the hash of that list, so equal bytes have an equal digest wherever and
whenever they were made.

A stage writes into a work folder under `results/.work/`, and the finished folder is renamed into
place. The work folder survives a kill, so that a stage can resume from its shards or checkpoints;
it is emptied when settings, inputs or code have changed since.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from vista.engine.disk import force_all_to_disk, force_to_disk, write_synced
from vista.engine.locks import locked, locked_if_free, provenance_file, work_folder
from vista.engine.user_files import digest_file as digest_file
from vista.engine.user_files import digest_user_file
from vista.errors import UserError

MANIFEST = "manifest.json"
CHECKSUMS = "checksums.json"
# A copy of the manifest. Snakemake deletes a job's output, the manifest, before the job starts; if
# nothing that the artifact depends on has changed, the manifest is restored from this copy.
MEMO = "memo.json"
_RESERVED = frozenset({MANIFEST, CHECKSUMS, MEMO})
# Below the work folder: what a stage needs only to resume after a kill. It is never published.
CHECKPOINTS = "checkpoints"
# Seconds until a lock that another process holds for a moment is tried again.
_PAUSE_S = 0.05


def canonical_json(value: Any) -> str:
    """Return the canonical JSON text of `value`: sorted keys, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def with_options(
    settings: Mapping[str, Any], options: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """Return settings with the options of their parts merged in."""
    return {
        key: {**value, **options[key]} if key in options else value
        for key, value in settings.items()
    }


def digest_text(text: str) -> str:
    """Return the SHA-256 of `text` in hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class Artifact:
    """A finished artifact, read through its manifest.

    `digest` identifies the bytes of all files; `stage` and `settings` are those of the job.
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

        Only existence and size are checked: the chunks carry checksums, which the store's reader
        verifies. A folder of fetched images is opened this way, too, since reading all images twice
        would take longer than using them; `vista verify` reads them.
        """
        for member in self._members(name):
            self._sized(member)
        return self.path / name

    def verify(self) -> None:
        """Check every file of the artifact against the manifest. Raises UserError."""
        for name in self.checksums:
            self.file(name)

    def _members(self, name: str) -> list[str]:
        members = [member for member in self.checksums if member.startswith(f"{name}/")]
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
        manifest = json.loads(text := manifest_path.read_bytes())
        for key in ("stage", "settings", "inputs", "code", "digest"):
            manifest[key]
        listing = (path / CHECKSUMS).read_bytes()
        memo = (path / MEMO).read_bytes()
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise damaged(manifest_path, f"it cannot be read ({error})", path) from error
    if hashlib.sha256(listing).hexdigest() != manifest["digest"]:
        raise damaged(path / CHECKSUMS, "its content differs from the manifest", path)
    if memo != text:
        # No checksum covers the settings in the manifest.
        raise damaged(manifest_path, f"it differs from its copy {MEMO}", path)
    if stage is not None and manifest["stage"] != stage:
        raise UserError(f"{path} holds a {manifest['stage']!r} artifact, expected {stage!r}.")
    return Artifact(path, manifest, json.loads(listing))


def remembered(path: Path) -> Artifact:
    """Return the artifact that the memo in the folder `path` describes.

    The folder may lack the manifest, as it does while a job makes the artifact again. Raises
    UserError where memo or checksum list are missing or damaged.
    """
    try:
        manifest = json.loads((path / MEMO).read_bytes())
        for key in ("stage", "settings", "inputs", "code", "packages"):
            manifest[key]
        listing = (path / CHECKSUMS).read_bytes()
        if hashlib.sha256(listing).hexdigest() != manifest["digest"]:
            raise damaged(path / CHECKSUMS, f"its content differs from {MEMO}", path)
        return Artifact(path, manifest, json.loads(listing))
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise damaged(path / MEMO, f"it cannot be read ({error})", path) from error


def input_digests(
    inputs: Mapping[str, Artifact | Sequence[Artifact]], files: Iterable[str] = ()
) -> dict[str, Any]:
    """Return the digests of a job's inputs by role; those of the user's files are role "files".

    A missing file has the digest ""; the stage reports it. A folder's covers all files below it.
    """
    digests: dict[str, Any] = {
        role: source.digest if isinstance(source, Artifact) else [a.digest for a in source]
        for role, source in inputs.items()
    }
    if paths := [Path(name) for name in files]:
        digests["files"] = [digest_user_file(path) for path in paths]
    return digests


@dataclass(frozen=True)
class Provenance:
    """All that the bytes of an artifact depend on.

    `inputs` are digests by role, `code` those of the stage's definitions by "module:name".
    `parents` are the inputs' folders below the results folder, on which the bytes do not depend.
    """

    stage: str
    settings: Mapping[str, Any]
    inputs: Mapping[str, Any]
    code: Mapping[str, str]
    packages: Mapping[str, str]
    parents: Mapping[str, str | list[str]] = field(default_factory=dict, compare=False)

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
def publishing(
    results: Path, stage: str, node: str, provenance: Provenance
) -> Iterator[Path | None]:
    """Yield a work folder for the artifact `<stage>/<node>`, and publish it on a clean exit.

    Yields None where the artifact exists with equal provenance. The work folder still holds what an
    interrupted try of equal provenance left there. One process at a time works on an artifact; a
    second one waits for the first, which a killed workflow may have left running.

    Raises UserError where the stage's output cannot be written.
    """
    out = results / stage / node
    work = work_folder(results, stage, node)
    marker = provenance_file(work)
    with locked(work, out):
        if _restore(out, provenance, marker):
            marker.unlink(missing_ok=True)
            yield None
            return
        _prepare(work, marker, canonical_json(provenance.as_dict()))
        yield work
        _publish(work, out, provenance, marker)
        marker.unlink()


@contextlib.contextmanager
def sharing(results: Path, stage: str, node: str, provenance: Provenance) -> Iterator[Path | None]:
    """Yield the work folder of the artifact `<stage>/<node>` to one of several processes.

    Each process does a part there. `publishing` then finds the parts as an interrupted try, and
    waits for processes that still run. Yields None where the artifact exists already.
    """
    out = results / stage / node
    work = work_folder(results, stage, node)
    marker, wanted = provenance_file(work), canonical_json(provenance.as_dict())
    while True:
        with locked(work, out, shared=True):
            if _prepared(work, marker, wanted):
                yield work
                return
        # Between the two locks another process may prepare the folder, or publish. Waiting for it
        # could take hours, and this part can be done at the same time.
        with locked_if_free(work) as alone:
            if alone and _restore(out, provenance, marker):
                yield None
                return
            if alone:
                _prepare(work, marker, wanted)
        if not alone:
            time.sleep(_PAUSE_S)


def _restore(out: Path, provenance: Provenance, beside: Path) -> bool:
    """Restore an artifact's manifest if nothing that the artifact depends on has changed."""
    try:
        artifact = remembered(out)
        if {key: artifact.manifest[key] for key in provenance.as_dict()} != provenance.as_dict():
            return False
        artifact.verify()
        text = (out / MEMO).read_bytes()
    except (OSError, ValueError, KeyError, TypeError, RecursionError, UserError):
        return False
    # Left over if a kill came right after the rename.
    shutil.rmtree(out / CHECKPOINTS, ignore_errors=True)
    write_synced(out / MANIFEST, text, beside)
    return True


def _prepare(work: Path, marker: Path, wanted: str) -> None:
    if not _prepared(work, marker, wanted):
        # The marker is removed first: a folder that is half removed must not count as resumable.
        marker.unlink(missing_ok=True)
        if work.exists():
            shutil.rmtree(work)
        work.mkdir(parents=True)
        write_synced(marker, wanted.encode(), marker)
    for name in _RESERVED:  # of a try that was killed while it published
        (work / name).unlink(missing_ok=True)


def _prepared(work: Path, marker: Path, wanted: str) -> bool:
    return work.is_dir() and marker.is_file() and marker.read_text() == wanted


def _publish(work: Path, out: Path, provenance: Provenance, beside: Path) -> None:
    files = [path.relative_to(work) for path in work.rglob("*") if path.is_file()]
    names = sorted(path.as_posix() for path in files if path.parts[0] != CHECKPOINTS)
    clash = _RESERVED.intersection(names)
    assert not clash, f"{provenance.stage}: a stage may not write {sorted(clash)}"
    checksums = {
        name: {"bytes": (work / name).stat().st_size, "sha256": digest_file(work / name)}
        for name in names
    }
    # The manifest must not reach the disk before the files that it lists.
    force_all_to_disk(work)
    listing = json.dumps(checksums, sort_keys=True, indent=1).encode()
    manifest = {**provenance.as_dict(), "digest": hashlib.sha256(listing).hexdigest()}
    if provenance.parents:
        manifest["parents"] = dict(provenance.parents)
    text = manifest_text(manifest)
    write_synced(work / CHECKSUMS, listing, beside)
    write_synced(work / MEMO, text, beside)
    _clear(out)
    os.replace(work, out)
    force_to_disk(out.parent)
    # Only now: a try that is killed before this point resumes from them.
    shutil.rmtree(out / CHECKPOINTS, ignore_errors=True)
    # Last: from here on the artifact is finished.
    write_synced(out / MANIFEST, text, beside)


def manifest_text(manifest: Mapping[str, Any]) -> bytes:
    """Return the text of a manifest and of its copy."""
    return (json.dumps(manifest, sort_keys=True, indent=1, allow_nan=False) + "\n").encode()


def _clear(out: Path) -> None:
    """Empty the folder `out`. The artifact there stops counting with the first removal."""
    if out.exists():
        (out / MANIFEST).unlink(missing_ok=True)
        (out / MEMO).unlink(missing_ok=True)
        shutil.rmtree(out)
    out.mkdir(parents=True)
