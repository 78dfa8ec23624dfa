"""Stage: convert a vision encoder in an ONNX file to a checkpoint of transformers."""

from __future__ import annotations

from dataclasses import dataclass

from vista.config.encoders import OnnxEncoder
from vista.engine.artifacts import Artifact
from vista.engine.forecast.need import START, Need
from vista.engine.forecast.shapes import Shapes
from vista.engine.job import StageJob, stage
from vista.engine.node import Node
from vista.inputs.package_files import package_file


@dataclass(frozen=True)
class Inputs:
    """The package that holds the file, unless it is the user's own."""

    package: Artifact | None = None


@stage(OnnxEncoder, Inputs)
def run(job: StageJob[OnnxEncoder, Inputs]) -> None:
    """Read the ONNX file; write model/ (configuration, safetensors weights, image processor).

    Raises UserError where the file is damaged, holds no encoder of the family, or one that the
    settings do not fit.
    """
    from vista.encoders.onnx import convert_dinov2

    settings = job.settings
    convert_dinov2(
        package_file(job.inputs.package, settings.file, "file of an onnx source"),
        job.work / "model",
        size=settings.size,
        mean=settings.mean,
        std=settings.std,
        heads=settings.heads,
    )


def need(node: Node, shapes: Shapes) -> Need:
    """Disk: parameters in float32, which are held before they are written."""
    shape = shapes.vision(node)
    disk = None if shape is None else 4 * shape.loaded
    return Need(disk=disk, seconds=2 * START, held=disk)
