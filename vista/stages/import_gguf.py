"""Stage: convert a language model in a GGUF file to a checkpoint of transformers."""

from __future__ import annotations

from dataclasses import dataclass

from vista.config.language import GgufLlm
from vista.engine.artifacts import Artifact
from vista.engine.forecast.need import TORCH_START, Need
from vista.engine.forecast.shapes import Shapes
from vista.engine.job import StageJob, stage
from vista.engine.node import Node
from vista.inputs.package_files import package_file

# Seconds for each token of the vocabulary and each weight of the model: SmolLM2-135M on one core.
_PER_TOKEN, _PER_WEIGHT = 4e-4, 8e-8


@dataclass(frozen=True)
class Inputs:
    """The package that holds the file, unless it is the user's own."""

    package: Artifact | None = None


@stage(GgufLlm, Inputs)
def run(job: StageJob[GgufLlm, Inputs]) -> None:
    """Read the GGUF file; write model/ (configuration, safetensors weights, tokenizer).

    Raises UserError where the file is damaged or none that transformers reads, or where the package
    gguf is missing.
    """
    import torch

    from vista.language.gguf import convert_gguf

    torch.set_num_threads(job.threads)
    settings = job.settings
    path = package_file(job.inputs.package, settings.file, "file of a gguf source")
    convert_gguf(path, job.work / "model", settings.stored_dtype)


def need(node: Node, shapes: Shapes) -> Need:
    """Disk: parameters x the bytes of each as stored. Memory: the weights in float32, twice."""
    shape = shapes.llm(node)
    if shape is None:
        return Need(disk=None, seconds=None, held=None)
    item = 4 if node.settings["stored_dtype"] == "float32" else 2
    return Need(
        disk=shape.loaded * item,
        seconds=TORCH_START + _PER_TOKEN * shape.vocabulary + _PER_WEIGHT * shape.loaded,
        held=shape.loaded * 8,
    )
