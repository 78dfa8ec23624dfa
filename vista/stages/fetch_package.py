"""Stage: files out of a package of a registry."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

from pydantic import Field

from vista.config.base import Settings
from vista.config.packages import AptPackage, FolderPackage, PipPackage
from vista.config.published import package_bytes
from vista.engine.forecast.need import SMALL, Need
from vista.engine.forecast.shapes import Shapes
from vista.engine.job import NoInputs, StageJob, stage
from vista.engine.node import Node
from vista.engine.user_files import digest_file, files_below
from vista.errors import UserError
from vista.fetch.packages import fetch_package, kept, refuse_unmatched, unpack_package
from vista.fetch.source import write_source


class LinkedFolder(FolderPackage):
    """A folder of the user's, as an entry of the config.

    `name` is the entry's; `state` changes when a file of the folder may have changed.
    """

    name: str
    state: str = ""


class FetchPackageOrder(Settings):
    """A package, and which of its files are kept."""

    package: Annotated[PipPackage | AptPackage | LinkedFolder, Field(discriminator="kind")]


@stage(FetchPackageOrder, NoInputs)
def run(job: StageJob[FetchPackageOrder, NoInputs]) -> None:
    """Write files/ with the files that are kept, licence/ with those that state the licence, and
    source.json (the package, its size in bytes and its licence in a line).

    Of a folder, files/ is a link to it, and contents.json has the size and the SHA-256 of each file
    that is kept.

    Raises UserError as `fetch_package` and `unpack_package`, or where the folder is not there.
    """
    package = job.settings.package
    if isinstance(package, LinkedFolder):
        _link(package, job.work)
        return
    received = job.work / "received"
    file = fetch_package(package, received)
    licence = unpack_package(package, file, job.work)
    on_terms = "" if package.terms is None else f", terms {package.terms}"
    print(f"{package.package} {package.version}: licence {licence} (see licence/){on_terms}")
    stated = {"kind", "package", "version", "sha256", "terms"}
    source = package.model_dump(mode="json", include=stated)
    write_source(
        job.work / "source.json", {**source, "bytes": file.stat().st_size, "licence": licence}
    )
    shutil.rmtree(received)


def _link(package: LinkedFolder, work: Path) -> None:
    folder = Path(package.path).absolute()
    if not folder.is_dir():
        raise UserError(f"packages.{package.name}: {folder} is not a folder; correct its `path`")
    names = files_below(folder)
    refuse_unmatched(names, package.files, f"packages.{package.name}: {folder}")
    contents = {
        name: {"bytes": (folder / name).stat().st_size, "sha256": digest_file(folder / name)}
        for name in names
        if kept(name, package.files)
    }
    if not contents:
        raise UserError(f"packages.{package.name}: {folder} holds no files; correct its `path`")
    write_source(work / "contents.json", contents)
    write_source(work / "source.json", {"kind": "folder"})
    link = work / "files"
    link.unlink(missing_ok=True)
    link.symlink_to(folder)


def need(node: Node, _shapes: Shapes) -> Need:
    """Disk: the size of the package's file; what is large in it is mostly compressed already."""
    package = node.order["package"]
    if package["kind"] == "folder":
        return Need(disk=SMALL)
    return Need(disk=package_bytes(package), seconds=0.0)
