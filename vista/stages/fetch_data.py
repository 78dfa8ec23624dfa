"""Stage: images and annotations by URL, archives unpacked."""

from __future__ import annotations

import os
import shutil
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from vista.config.base import Settings
from vista.config.data import FetchFile
from vista.config.published import DOWNLOADS
from vista.engine.forecast.need import Need
from vista.engine.forecast.shapes import Shapes, all_known
from vista.engine.job import NoInputs, StageJob, stage
from vista.engine.node import Node
from vista.errors import UserError
from vista.fetch.archives import SUFFIXES, unpack
from vista.fetch.download import Checksum, Refused, RemoteFile, client, digest, fetch_files, inside
from vista.fetch.source import write_source

_INSTEAD = "fetch the files yourself and name their folders instead of `fetch`"


class FetchDataOrder(Settings):
    """The files to download."""

    files: tuple[FetchFile, ...]


@stage(FetchDataOrder, NoInputs)
def run(job: StageJob[FetchDataOrder, NoInputs]) -> None:
    """Write data/ with the files of `files` (see vista.config.data.FetchFile), and source/N.json
    for the Nth: its URL, SHA-256 and size in bytes. The latter is written when the file is complete
    or its archive unpacked; a resumed job skips the files that have one.

    Raises UserError where a file does not exist, differs from its checksum or is no safe archive,
    a host cannot be reached or the disk is full.
    """
    received = job.work / "received"
    (job.work / "source").mkdir(exist_ok=True)
    for number, file in enumerate(job.settings.files):
        done = job.work / "source" / f"{number}.json"
        if not done.is_file():
            write_source(done, _fetch(file, received / str(number), job.work / "data"))
    if received.exists():
        shutil.rmtree(received)


def _fetch(file: FetchFile, received: Path, data: Path) -> dict[str, object]:
    """Download one file to `received` and put it into `data`; return its size, SHA-256 and URL."""
    url, sha256 = file.url, file.sha256
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
    source: dict[str, object] = {"bytes": path.stat().st_size, "sha256": sha256, "url": url}
    folder = data / file.folder
    if file.unpack and name.endswith(SUFFIXES):
        source["files"] = unpack(path, folder)
        path.unlink()
    else:
        folder.mkdir(parents=True, exist_ok=True)
        os.replace(path, folder / name)
    return source


def need(node: Node, _shapes: Shapes) -> Need:
    """Disk: sizes of published files; images hardly grow when they are unpacked."""
    urls = [file["url"] for file in node.settings["files"]]
    sizes = all_known(
        next((size for end, size in DOWNLOADS.items() if url.endswith(end)), None) for url in urls
    )
    return Need(disk=None if sizes is None else sum(sizes), seconds=0.0)
