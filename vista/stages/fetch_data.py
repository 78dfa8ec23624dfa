"""Stage: images and annotations by URL, archives unpacked."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from vista.engine.artifacts import Job
from vista.errors import UserError
from vista.fetch.archives import SUFFIXES, unpack
from vista.fetch.download import Checksum, Refused, RemoteFile, client, digest, fetch_files, inside
from vista.fetch.source import write_source

_INSTEAD = "fetch the files yourself and name their folders instead of `fetch`"


def run(job: Job) -> None:
    """Write data/ with the files of `files` (see vista.config.data.FetchFile), and source/N.json
    for the Nth: its URL, SHA-256 and size in bytes. That note is written once the file is there or
    its archive is unpacked completely; a resumed job passes over what has one.

    Raises UserError where a file does not exist, differs from its checksum or is no safe archive,
    a host cannot be reached or the disk is full.
    """
    received = job.work / "received"
    (job.work / "source").mkdir(exist_ok=True)
    for number, file in enumerate(job.settings["files"]):
        done = job.work / "source" / f"{number}.json"
        if not done.is_file():
            write_source(done, _fetch(file, received / str(number), job.work / "data"))
    if received.exists():
        shutil.rmtree(received)


def _fetch(file: Mapping[str, Any], received: Path, data: Path) -> dict[str, object]:
    """Fetch one file into `data`, by way of the folder `received`; return what came."""
    url, sha256 = file["url"], file["sha256"]
    address = urlsplit(url)
    name = PurePosixPath(unquote(address.path)).name
    if not name:
        raise UserError(f"`url`: {url} names no file; give the address of one")
    path = inside(received, name)
    checksum = Checksum("sha256", sha256) if sha256 is not None else None
    with client() as http:
        try:
            fetch_files(http, [RemoteFile(url, path, None, checksum)], name, _INSTEAD)
        except Refused as error:
            why = "does not exist" if error.status in (404, 410) else "is refused"
            raise UserError(
                f"{name} {why} at {address.hostname} (HTTP status {error.status}); correct `url`, "
                f"or {_INSTEAD}"
            ) from error
    if sha256 is None:
        sha256 = digest(path, "sha256")
        print(f"{name}: no checksum was given; `sha256: {sha256}` pins what came")
    found: dict[str, object] = {"bytes": path.stat().st_size, "sha256": sha256, "url": url}
    folder = data / file["folder"]
    if file["unpack"] and name.endswith(SUFFIXES):
        found["files"] = unpack(path, folder)
        path.unlink()
    else:
        folder.mkdir(parents=True, exist_ok=True)
        os.replace(path, folder / name)
    return found
