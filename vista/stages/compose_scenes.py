"""Stage: compose scenes of cut-out photographs and write them in the formats of real data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from vista.config.composed import ComposedData, GroundSource
from vista.data.composed import compose_scenes
from vista.data.cutouts import list_grounds
from vista.engine.artifacts import Artifact
from vista.engine.forecast.need import START, Need
from vista.engine.forecast.shapes import Shapes
from vista.engine.job import StageJob, roles_beginning, stage
from vista.engine.node import Node
from vista.inputs.package_files import package_file, package_folder

_PIXEL = 3e-7  # s to compose a pixel of a scene and pack it: 22 s for 1,500 of 224 x 224 measured


@dataclass(frozen=True)
class Inputs:
    """The packages that photographs lie in, by name."""

    packages: Mapping[str, Artifact] = roles_beginning("package_")


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


def _place(source: GroundSource, packages: Mapping[str, Artifact], key: str) -> Path | None:
    """The file or folder of a ground; None of a colour."""
    if source.folder is not None:
        return _folder(source.folder, source.package, packages, f"{key}.folder")
    if source.file is None:
        return None
    package = None if source.package is None else packages[f"package_{source.package}"]
    return package_file(package, source.file, f"{key}.file")


def _folder(folder: str, package: str | None, packages: Mapping[str, Artifact], key: str) -> Path:
    if package is None:
        return Path(folder)
    return package_folder(packages[f"package_{package}"], folder, key)


def need(node: Node, _shapes: Shapes) -> Need:
    """Disk: PNG files of at most three bytes a pixel."""
    settings = node.settings
    pixels = settings["image_size"] ** 2 * sum(settings["scenes"].values())
    return Need(disk=3.0 * pixels, seconds=START + _PIXEL * pixels)
