"""Stage: compose scenes of cut-out photographs and write them in the formats of real data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from vista.config.composed import ComposedData, GroundSource
from vista.data.composed import compose_scenes
from vista.data.cutouts import list_grounds
from vista.engine.artifacts import Artifact
from vista.engine.forecast.need import START, Need
from vista.engine.forecast.shapes import Shapes
from vista.engine.job import StageJob, stage
from vista.engine.node import Node
from vista.inputs.package_files import package_file, package_folder, package_of

_PIXEL = 3e-7  # s to compose a pixel of a scene and pack it: 22 s for 1,500 of 224 x 224 measured


@dataclass(frozen=True)
class Inputs:
    """The packages that photographs lie in; the settings number them."""

    packages: list[Artifact] = field(default_factory=list)


@stage(ComposedData, Inputs)
def run(job: StageJob[ComposedData, Inputs]) -> None:
    """Write images/ and annotations/ (COCO JSON)."""
    settings, packages = job.settings, job.inputs.packages
    places = [
        _place(source, packages, f"grounds.{number}")
        for number, source in enumerate(settings.grounds)
    ]
    grounds = list_grounds(settings.grounds, places)
    folder = _folder(settings.cutouts.folder, settings.cutouts.package, packages, "cutouts.folder")
    compose_scenes(settings, folder, grounds, job.work)


def _place(source: GroundSource, packages: Sequence[Artifact], key: str) -> Path | None:
    """The file or folder of a ground; None of a colour."""
    if source.folder is not None:
        return _folder(source.folder, source.package, packages, f"{key}.folder")
    if source.file is None:
        return None
    return package_file(package_of(packages, source.package), source.file, f"{key}.file")


def _folder(folder: str, package: str | None, packages: Sequence[Artifact], key: str) -> Path:
    held = package_of(packages, package)
    return Path(folder) if held is None else package_folder(held, folder, key)


def need(node: Node, _shapes: Shapes) -> Need:
    """Disk: PNG files of at most three bytes a pixel."""
    settings = node.settings
    pixels = settings["image_size"] ** 2 * sum(settings["scenes"].values())
    return Need(disk=3.0 * pixels, seconds=START + _PIXEL * pixels)
